package schedule_test

import (
	"archive/zip"
	"flag"
	"fmt"
	"go/build"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

var allZones = flag.Bool("all-zones", false, "check cron in every zone and minute of 2015 to 2035; takes some minutes")

// nastyZones are looked at by every run.
var nastyZones = []string{
	"America/New_York", "Europe/London", "Australia/Lord_Howe" /* half an hour */, "Antarctica/Troll", /* two hours */
	"Africa/Cairo", "Asia/Beirut", "America/Havana", "America/Santiago", "Asia/Gaza" /* midnight */, "America/Nuuk", /* up to midnight */
	"Africa/Casablanca" /* Ramadan */, "America/Sao_Paulo", "Asia/Pyongyang" /* half an hour, twice */, "America/Caracas", "Pacific/Chatham",
}

// cronCase is an expression and what it says, written a second time without a parser.
type cronCase struct {
	expression string
	everyHour  bool
	matches    func(day time.Time, hour, minute int) bool
	daily      int // for the daily ones, the minute of the day
}

var cronCases = []cronCase{
	{"0 0 * * *", false, func(_ time.Time, h, m int) bool { return h == 0 && m == 0 }, 0},
	{"30 1 * * *", false, func(_ time.Time, h, m int) bool { return h == 1 && m == 30 }, 90},
	{"30 2 * * *", false, func(_ time.Time, h, m int) bool { return h == 2 && m == 30 }, 150},
	{"59 23 * * *", false, func(_ time.Time, h, m int) bool { return h == 23 && m == 59 }, 23*60 + 59},
	{"*/15 * * * *", true, func(_ time.Time, _, m int) bool { return m%15 == 0 }, -1},
	{"0 9 * * 1-5", false, func(day time.Time, h, m int) bool {
		return h == 9 && m == 0 && day.Weekday() != time.Saturday && day.Weekday() != time.Sunday
	}, -1},
	{"0 0 29 2 *", false, func(day time.Time, h, m int) bool {
		return h == 0 && m == 0 && day.Month() == time.February && day.Day() == 29
	}, -1},
	{"0 0 * * 7", false, func(day time.Time, h, m int) bool { return h == 0 && m == 0 && day.Weekday() == time.Sunday }, -1},

	{"30 * * * *", true, func(_ time.Time, _, m int) bool { return m == 30 }, -1},
	{"10 */2 * * *", false, func(_ time.Time, h, m int) bool { return h%2 == 0 && m == 10 }, -1},
	{"*/20 1-3 * * sun", false, func(day time.Time, h, m int) bool {
		return m%20 == 0 && h >= 1 && h <= 3 && day.Weekday() == time.Sunday
	}, -1},
	{"0 * */3 * 5-7", true, func(day time.Time, _, m int) bool {
		return m == 0 && day.Day()%3 == 1 && (day.Weekday() == time.Sunday || day.Weekday() >= time.Friday)
	}, -1},
}

// TestCronAgainstEveryMinute compares Next with a look at the clock in every minute.
func TestCronAgainstEveryMinute(t *testing.T) {
	from, to := instant("2015-01-01 00:00"), instant("2027-01-01 00:00")
	zones := slices.Clone(nastyZones)
	if *allZones {
		for _, zone := range differentZones(t, from, instant("2036-01-01 00:00")) {
			t.Run(zone, func(t *testing.T) {
				t.Parallel()
				watchClock(t, zone, from, instant("2036-01-01 00:00"))
			})
		}
		// And the changes since 1973; before, offsets had seconds.
		zones, from, to = zoneNames(t), instant("1973-01-01 00:00"), instant("2043-01-01 00:00")
	} else {
		zones = append(zones, sampleZones(t, 3)...)
		watchClock(t, "Pacific/Apia", instant("2011-12-25 00:00"), instant("2012-01-05 00:00"))
		watchClock(t, "Pacific/Kwajalein", instant("1993-08-15 00:00"), instant("1993-08-26 00:00"))
	}
	for _, zone := range zones {
		for _, change := range changesOfClock(t, zone, from, to) {
			watchClock(t, zone, change.Add(-25*time.Hour), change.Add(25*time.Hour))
		}
	}
}

// watchClock walks through the minutes of real time and looks at the zone's clock. An expression of every hour happens
// when the clock shows a minute that it names; any other when the clock shows, or has just jumped over, one for the first
// time, unless it jumped over that whole day.
func watchClock(t *testing.T, zone string, from, to time.Time) {
	t.Helper()
	const minutesADay = 24 * 60
	location := load(t, zone)
	shown := func(unix int64) int64 {
		_, offset := time.Unix(unix, 0).In(location).Zone()
		return (unix + int64(offset)) / 60
	}
	begin := from.Unix() / 60 * 60
	var highest int64
	for unix := begin - 2*86400; unix < begin; unix += 60 {
		highest = max(highest, shown(unix))
	}
	crons := make([]schedule.Cron, len(cronCases))
	next := make([]int64, len(cronCases))
	for i, c := range cronCases {
		crons[i] = mustParseCron(t, c.expression, zone)
		next[i] = crons[i].Next(time.Unix(begin, -1)).Unix()
	}
	var day time.Time
	today := int64(-1)
	matches := func(c *cronCase, minute int64) bool {
		if minute/minutesADay != today {
			today = minute / minutesADay
			day = time.Unix(today*86400, 0).UTC()
		}
		ofDay := int(minute % minutesADay)
		return c.matches(day, ofDay/60, ofDay%60)
	}
	for unix := begin; unix < to.Unix(); unix += 60 {
		now := shown(unix)
		for i := range cronCases {
			c := &cronCases[i]
			happens := false
			if c.everyHour {
				happens = matches(c, now)
			} else {
				for minute := highest + 1; minute <= now && !happens; minute++ {
					midnight := minute / minutesADay * minutesADay
					jumpedOverTheDay := midnight > highest && midnight+minutesADay <= now
					happens = !jumpedOverTheDay && matches(c, minute)
				}
			}
			if happens != (next[i] == unix) {
				t.Fatalf("%q in %s: happens at %v is %t, and Next says %v", c.expression, zone, time.Unix(unix, 0).In(location), happens,
					time.Unix(next[i], 0).In(location))
			}
			if happens {
				next[i] = crons[i].Next(time.Unix(unix, 0)).Unix()
			}
		}
		highest = max(highest, now)
	}
}

// A daily expression happens once on every day, at its time or within the three hours that a clock is put forward at the
// most.
func TestCronOnceADay(t *testing.T) {
	zones, end := append(slices.Clone(nastyZones), sampleZones(t, 3)...), 2019
	if *allZones {
		zones, end = zoneNames(t), 2036
	}
	for _, zone := range zones {
		location := load(t, zone)
		for _, c := range cronCases {
			if c.daily < 0 {
				continue
			}
			cron := mustParseCron(t, c.expression, zone)
			day := time.Date(2015, 1, 1, 0, c.daily, 0, 0, time.UTC)
			at := cron.Next(time.Date(2015, 1, 1, 0, 0, 0, -1, location))
			for ; day.Year() < end; day = day.AddDate(0, 0, 1) {
				_, offset := at.In(location).Zone()
				late := at.Add(time.Duration(offset) * time.Second).Sub(day)
				if late < 0 || late > 3*time.Hour {
					t.Fatalf("%q in %s: on %s it is at %v", c.expression, zone, day.Format(time.DateOnly), at.In(location))
				}
				at = cron.Next(at)
			}
		}
	}
}

func load(t testing.TB, zone string) *time.Location {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return location
}

// changesOfClock looks at a zone's clock every quarter of an hour. (What Time.ZoneBounds says is not to be relied upon.)
func changesOfClock(t *testing.T, zone string, from, to time.Time) []time.Time {
	t.Helper()
	var changes []time.Time
	location := load(t, zone)
	_, last := from.In(location).Zone()
	for unix := from.Unix(); unix < to.Unix(); unix += 15 * 60 {
		at := time.Unix(unix, 0).In(location)
		if _, offset := at.Zone(); offset != last {
			changes, last = append(changes, at), offset
		}
	}
	return changes
}

// differentZones takes one of those zones whose clocks show the same from one instant to the other.
func differentZones(t *testing.T, from, to time.Time) []string {
	t.Helper()
	var different []string
	seen := map[string]bool{}
	for _, zone := range zoneNames(t) {
		_, first := from.In(load(t, zone)).Zone()
		history := fmt.Sprint(first)
		for _, change := range changesOfClock(t, zone, from, to) {
			_, offset := change.Zone()
			history += fmt.Sprint(" ", change.Unix(), " ", offset)
		}
		if !seen[history] {
			different = append(different, zone)
		}
		seen[history] = true
	}
	t.Logf("%d different zones", len(different))
	return different
}

// sampleZones takes others in every run, and says which.
func sampleZones(t *testing.T, n int) []string {
	t.Helper()
	names, seed := zoneNames(t), rand.Uint64()
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	t.Logf("sampled zones: %s", strings.Join(names[:n], " "))
	return names[:n]
}

// zoneNames lists the tz database that comes with Go, the one that is embedded.
func zoneNames(t testing.TB) []string {
	t.Helper()
	archive, err := zip.OpenReader(filepath.Join(build.Default.GOROOT, "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	var names []string
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, "/") {
			names = append(names, file.Name)
		}
	}
	if len(names) < 500 {
		t.Fatalf("the tz database has %d zones only", len(names))
	}
	return names
}
