package schedule_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

func mustParseCron(t testing.TB, expression, timezone string) schedule.Cron {
	t.Helper()
	c, err := schedule.ParseCron(expression, timezone)
	if err != nil {
		t.Fatalf("ParseCron(%q, %q): %v", expression, timezone, err)
	}
	return c
}

// Each pair means the same, so the next times are the same.
func TestParseCronReads(t *testing.T) {
	for in, same := range map[string]string{
		"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
		"@yearly": "0 0 1 1 *", " @Annually\n": "0 0 1 1 *", "@DAILY": "0 0 * * *", " 0\t0  * * * ": "0 0 * * *",
		"0 0 * * 7": "0 0 * * sun", "0 0 * * 5-7": "0 0 * * 0,5,6", "0 0 * * 6,7": "0 0 * * 0,6", "0 0 * * 1-7/2": "0 0 * * 0,1,3,5",
		"0 0 * * 0-7": "0 0 * * *", "0 0 * * 7-7": "0 0 * * 0", "0 0 * * FRI-Sun": "0 0 * * 0,5,6", "0 0 * * 7/1": "0 0 * * 0",
		"0 0 * * 1/2": "0 0 * * 1,3,5", "0 0 * * sun-sat": "0 0 * * *",
		"0 0 1 JAN-Mar *": "0 0 1 1,2,3 *", "5/15 * * * *": "5,20,35,50 * * * *", "*/60 * * * *": "0 * * * *", "0 */24 * * *": "0 0 * * *",
		"0-59 0-23 1-31 1-12 *": "* * * * *", "05 007 * * *": "5 7 * * *", "1,1,1 * * * *": "1 * * * *", "0 0 */1 * 1": "0 0 * * 1",
		// Both days: one of them is enough when neither begins with a star, both have to match when one does.
		"0 0 */2 * 1": "0 0 */2 * mon", "0 0 *,5 * 1": "0 0 * * 1", "0 0 1-31 * 1": "0 0 * * *", "0 0 1 * 0-6": "0 0 * * *",
	} {
		got, want := mustParseCron(t, in, "Europe/Berlin"), mustParseCron(t, same, "Europe/Berlin")
		for a, b, n := instant("2026-01-01 00:00"), instant("2026-01-01 00:00"), 0; n < 400; n++ {
			a, b = got.Next(a), want.Next(b)
			if !a.Equal(b) {
				t.Errorf("%q is at %v, and %q at %v", in, a, same, b)
				break
			}
		}
	}
}

func instant(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04 -0700", "2006-01-02 15:04:05 -0700"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	panic("bad instant in a test: " + text)
}

func TestCronNext(t *testing.T) {
	for _, test := range []struct {
		expression, timezone, after string
		want                        []string
	}{
		{"30 2 * * *", "UTC", "2026-03-07 02:30", []string{"2026-03-08 02:30", "2026-03-09 02:30"}},
		{"0 0 * * 7", "UTC", "2026-11-20 00:00", []string{"2026-11-22 00:00", "2026-11-29 00:00"}},
		{"0 9 * * 1-5", "Europe/Berlin", "2026-11-20 08:00", []string{"2026-11-23 08:00"}},
		{"0 0 29 2 *", "UTC", "2026-01-01 00:00", []string{"2028-02-29 00:00", "2032-02-29 00:00"}},
		// 2100 is no leap year, and robfig/cron looks five years ahead.
		{"0 0 29 2 *", "UTC", "2096-03-01 00:00", []string{"2104-02-29 00:00"}},
		{"0 * 29 2 *", "America/New_York", "2096-03-02 00:00", []string{"2104-02-29 00:00 -0500"}},
		{"0 0 29 2 */7", "UTC", "2088-03-01 00:00", []string{"2128-02-29 00:00"}}, // a Sunday
		// Both days: */2 begins with a star, so it is a Monday of odd number; 1-31/2 does not, so it is either.
		{"0 0 */2 * 1", "UTC", "2026-11-01 12:00", []string{"2026-11-09 00:00", "2026-11-23 00:00"}},
		{"0 0 1 * */2", "UTC", "2026-11-01 12:00", []string{"2026-12-01 00:00", "2027-04-01 00:00"}},
		{"0 0 1-31/2 * 1", "UTC", "2026-11-01 12:00", []string{"2026-11-02 00:00", "2026-11-03 00:00"}},
		{"0 0 13 * 5", "UTC", "2026-11-07 00:00", []string{"2026-11-13 00:00", "2026-11-20 00:00"}},

		// A time that does not exist is right after the gap, several of them once.
		{"30 2 * * *", "America/New_York", "2026-03-08 02:00", []string{"2026-03-08 03:00 -0400", "2026-03-09 02:30 -0400"}},
		{"*/15 2 * * *", "America/New_York", "2026-03-08 05:00", []string{"2026-03-08 03:00 -0400", "2026-03-09 02:00 -0400"}},
		{"0 0 * * *", "Africa/Cairo", "2026-04-23 12:00", []string{"2026-04-24 01:00 +0300", "2026-04-25 00:00 +0300"}},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", []string{"2026-10-04 02:30 +1100", "2026-10-05 02:15 +1100"}},
		// Across midnight it is the slot of the day before.
		{"30 23 * * 6", "America/Nuuk", "2026-03-28 12:00", []string{"2026-03-29 00:00 -0100", "2026-04-04 23:30 -0100"}},
		// A time that comes twice is the first.
		{"30 1 * * *", "America/New_York", "2026-10-31 12:00", []string{"2026-11-01 01:30 -0400", "2026-11-02 01:30 -0500"}},
		{"30 1 * * *", "America/New_York", "2026-11-01 05:30", []string{"2026-11-02 01:30 -0500"}},
		{"30 1 * * *", "America/New_York", "2026-11-01 06:10", []string{"2026-11-02 01:30 -0500"}},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", []string{"2026-04-05 01:45 +1100", "2026-04-06 01:45 +1030"}},
		// */2 hours are fixed hours: 2:00 is made up for at 3:00, and 1:00 would be once.
		{"0 */2 * * *", "America/New_York", "2026-03-08 05:00", []string{"2026-03-08 03:00 -0400", "2026-03-08 04:00 -0400"}},
		{"0 1-23/2 * * *", "America/New_York", "2026-11-01 05:00", []string{"2026-11-01 03:00 -0500"}},

		// Every hour: real time.
		{"30 * * * *", "America/New_York", "2026-03-08 06:00", []string{"2026-03-08 01:30 -0500", "2026-03-08 03:30 -0400"}},
		{"30 * * * *", "America/New_York", "2026-11-01 05:00", []string{"2026-11-01 01:30 -0400", "2026-11-01 01:30 -0500", "2026-11-01 02:30 -0500"}},
		{"30 0-23 * * *", "America/New_York", "2026-11-01 05:00", []string{"2026-11-01 01:30 -0400", "2026-11-01 01:30 -0500"}},
		{"0 * * * *", "Australia/Lord_Howe", "2026-04-04 14:00", []string{"2026-04-04 15:30", "2026-04-04 16:30"}},
		{"30 * * * *", "Australia/Lord_Howe", "2026-04-04 14:00", []string{"2026-04-04 14:30", "2026-04-04 15:00", "2026-04-04 16:00"}},
		{"*/15 * * * *", "Australia/Lord_Howe", "2026-04-04 14:45", []string{"2026-04-04 15:00", "2026-04-04 15:15"}},
		{"0 * 24 4 *", "Africa/Cairo", "2026-04-23 12:00", []string{"2026-04-24 01:00 +0300", "2026-04-24 02:00 +0300"}},
		{"0 * * * *", "Asia/Kathmandu", "2026-04-04 14:00", []string{"2026-04-04 14:15", "2026-04-04 15:15"}},

		// Go is wrong about when clocks change next on the last day of a leap year, and would never come to an end.
		{"30 2 * * *", "America/New_York", "2040-12-31 08:00", []string{"2041-01-01 02:30 -0500", "2041-01-02 02:30 -0500"}},
		{"30 * 1 * *", "America/New_York", "2040-12-31 08:00", []string{"2041-01-01 00:30 -0500"}},

		// A day that does not exist has no slot.
		{"0 9 * * *", "Pacific/Apia", "2011-12-29 12:00", []string{"2011-12-29 09:00 -1000", "2011-12-31 09:00 +1400"}},
		{"0 0 * * *", "Pacific/Apia", "2011-12-29 12:00", []string{"2011-12-31 00:00 +1400"}},
		{"0 9 30 12 *", "Pacific/Apia", "2011-01-01 12:00", []string{"2012-12-30 09:00 +1400"}},
		{"0 0 * * *", "Pacific/Kwajalein", "1993-08-20 13:00", []string{"1993-08-22 00:00 +1200"}},
		{"0 * * * *", "Pacific/Apia", "2011-12-30 08:00", []string{"2011-12-30 09:00", "2011-12-30 10:00"}},
	} {
		c := mustParseCron(t, test.expression, test.timezone)
		at := instant(test.after)
		for _, want := range test.want {
			next := c.Next(at)
			if !next.Equal(instant(want)) {
				t.Errorf("%q in %s after %v: %v, want %s", test.expression, test.timezone, at, next, want)
			}
			// Where the argument comes from is all the same.
			if other := c.Next(at.In(time.FixedZone("", 3*3600+1))); !other.Equal(next) || other.Location() != time.UTC {
				t.Errorf("%q in %s after %v in another location: %v, not %v", test.expression, test.timezone, at, other, next)
			}
			at = instant(want)
		}
	}
	if at := (schedule.Cron{}).Next(time.Now()); !at.IsZero() {
		t.Errorf("the zero Cron happens at %v", at)
	}
}

func TestParseCronRefuses(t *testing.T) {
	const everything = "minute, hour, day of month, month and day of week"
	for in, hint := range map[string]string{
		// What the hint has to speak of.
		"": everything, " ": everything, "0": everything, "* * * *": everything, "* * * * * *": "no field for seconds",
		"0 0 0 1 1 * 2026": everything, strings.Repeat("0", 256): everything, "0 0 * * " + strings.Repeat("1,", 5000) + "1": everything,
		"TZ=0": "--timezone", "TZ=": "--timezone", "TZ=UTC": "--timezone", "CRON_TZ=UTC": "--timezone", "TZ= * * * * *": "--timezone",
		"CRON_TZ=Mars/Phobos * * * * *": "--timezone", "TZ=UTC 0 0 * * *": "--timezone", " cron_tz=UTC @daily": "--timezone",
		"@every 1h": "--every", "@every -1h": "--every", "@EVERY 0s": "--every", "@every": "--every",
		"@reboot": "@daily", "@": "@daily", "@daily 5": "@daily", "@fortnightly": "@daily",

		"60 * * * *": "minute", "-1 * * * *": "minute", "*/0 * * * *": "minute", "*/61 * * * *": "minute", "1,,2 * * * *": "minute",
		"*/-5 * * * *": "minute", "*/+5 * * * *": "minute", "0-9/-1 * * * *": "minute",
		", * * * *": "minute", "1, * * * *": "minute", ",1 * * * *": "minute", "5-1 * * * *": "minute", "1-2-3 * * * *": "minute",
		"*/5/5 * * * *": "minute", "*/ * * * *": "minute", "*5 * * * *": "minute", "*-5 * * * *": "minute", "5- * * * *": "minute",
		"-5 * * * *": "minute", "+5 * * * *": "minute", "1.5 * * * *": "minute", "? * * * *": "minute", "five * * * *": "minute",
		"99999999999999999999 * * * *": "minute", "*/99999999999999999999 * * * *": "minute", "10-20/12 * * * *": "minute",
		"50/30 * * * *": "minute", "/5 * * * *": "minute", "0x5 * * * *": "minute", "٥ * * * *": "minute", "mon * * * *": "minute",
		"0 24 * * *": "hour", "0 22-6 * * *": "22-23,0-6", "0 */25 * * *": "hour", "0 1,25 * * *": "hour", "\x00 * * * *": "minute",
		"0 0 0 * *": "day of month", "0 0 32 * *": "day of month", "0 0 L * *": "day of month", "0 0 15W * *": "day of month",
		"0 0 ? * *": "day of month", "0 0 1 0 *": "month", "0 0 1 13 *": "month", "0 0 1 january *": "month", "0 0 1 dec-jan *": "month",
		"0 0 * * 8": "day of week", "0 0 * * 1#2": "day of week", "0 0 * * monday": "day of week", "0 0 * * fri-tue": "day of week",
		"0 0 * * 5-0": "day of week", "0 0 * * 7/2": "day of week", "0 0 * * jan": "day of week", "0 0 * * */8": "day of week",
		"0 0 30 2 *": "day of month", "0 0 31 4,6,9,11 *": "day of month", "0 0 30,31 2 */2": "day of month", "0 * 30 2 *": "day of month",
	} {
		c, err := schedule.ParseCron(in, "UTC")
		var invalid *schedule.InvalidError
		if !errors.As(err, &invalid) || invalid.What != "cron" || c != (schedule.Cron{}) {
			t.Errorf("ParseCron(%.80q) = %v, %v; want an InvalidError and nothing else", in, c, err)
			continue
		}
		if !strings.Contains(invalid.Hint, hint) || invalid.Problem == "" || len(invalid.Error())+len(invalid.Hint) > 1000 {
			t.Errorf("ParseCron(%.80q): %v; the hint %q does not speak of %s", in, err, invalid.Hint, hint)
		}
	}

	for in, hint := range map[string]string{
		"": "Europe/Berlin", " ": "Europe/Berlin", "Local": "Europe/Berlin", "local": "Europe/Berlin", "localtime": "Europe/Berlin", "LOCAL": "Europe/Berlin",
		"Mars/Phobos": "Europe/Berlin", "../UTC": "Europe/Berlin", "/etc/localtime": "Europe/Berlin", "Europe/../UTC": "Europe/Berlin",
		"Europe": "Europe/Berlin", "Europe/": "Europe/Berlin", "Europe//Berlin": "Europe/Berlin", `Europe\Berlin`: "Europe/Berlin", "+02:00": "Europe/Berlin",
		"UTC+2": "Europe/Berlin", "europe/berlin": "capitals: Europe/Berlin", "EUROPE/BERLIN": "capitals: Europe/Berlin", "utc": "capitals: UTC",
		"america/new_york": "capitals: America/New_York", "UTC ": "Europe/Berlin", "right/UTC": "Europe/Berlin", "posix/UTC": "Europe/Berlin",
		"posixrules": "Europe/Berlin", "UTC\x00": "Europe/Berlin", strings.Repeat("A", 10_000): "Europe/Berlin", "\xff": "Europe/Berlin",
	} {
		c, err := schedule.ParseCron("@daily", in)
		var invalid *schedule.InvalidError
		if !errors.As(err, &invalid) || invalid.What != "timezone" || c != (schedule.Cron{}) {
			t.Errorf("ParseCron in the zone %.80q = %v, %v; want an InvalidError and nothing else", in, c, err)
			continue
		}
		if !strings.Contains(invalid.Hint, hint) || len(invalid.Error()) > 1000 {
			t.Errorf("the zone %.80q: %v, with the hint %q, not %s", in, err, invalid.Hint, hint)
		}
	}
}

// The laws: nothing panics; what is taken is written in a way that reads back the same; times are later than asked for,
// never go backwards, are whole minutes, and come within the 40 years between two 29 February on a Sunday.
func FuzzCron(f *testing.F) {
	for _, expression := range []string{
		"0 0 * * *", "*/15 2-4 * * 1-5", "TZ=UTC", "@daily", "@every 1h", "0 0 29 2 *", "0 0 30 2 *", "0 0 29 2 */7", "5/15 * * * *", "0 0 1,15 jan-jun fri-sun",
		"1,,2 * * * *", "30 * 31 12 7", "0 */2 */2 */2 */2", "CRON_TZ= * * * * *",
	} {
		f.Add(expression, "America/New_York", int64(1_772_948_000), int64(3600))
	}
	f.Add("30 1 * * *", "Australia/Lord_Howe", int64(1_775_314_000), int64(60))
	f.Add("0 9 * * *", "Pacific/Apia", int64(1_325_152_800), int64(86_400))
	f.Add("0 9 * * *", "europe/berlin", int64(1_325_152_800), int64(86_400))
	f.Add("0 9 * * *", "America/Juneau", int64(-3_225_300_000), int64(86_400))
	zones := zoneNames(f)
	f.Fuzz(func(t *testing.T, expression, timezone string, seconds, later int64) {
		if _, err := schedule.ParseCron("@daily", timezone); err != nil && len(timezone) > 0 { // most are no zones
			timezone = zones[int(timezone[0])*len(zones)/256]
		}
		c, err := schedule.ParseCron(expression, timezone)
		if err != nil {
			var invalid *schedule.InvalidError
			if !errors.As(err, &invalid) || invalid.Problem == "" || invalid.Hint == "" || c != (schedule.Cron{}) {
				t.Fatalf("%q: %v and %v", expression, c, err)
			}
			return
		}
		const first, last = -210_866_803_200, 9_224_318_015_999 // of PostgreSQL's timestamps
		after := time.Unix(first+int64(uint64(seconds-first)%(last-first)), later%1e9&^0x3ff)
		next := c.Next(after)
		if !next.After(after) || next.Sub(after) > 41*366*schedule.Day {
			t.Fatalf("%q in %s: %v comes after %v", expression, timezone, next, after)
		}
		if next.Unix()%60 != 0 && next.Year() > 1972 { // until then Liberia was 44:30 behind
			t.Fatalf("%q in %s: %v is no whole minute", expression, timezone, next)
		}
		second := after.Add(time.Duration(later&(1<<40-1)) * time.Millisecond)
		if c.Next(second).Before(next) {
			t.Fatalf("%q in %s: %v comes after %v, and %v after %v", expression, timezone, next, after, c.Next(second), second)
		}
		if before := c.Next(next.Add(-time.Nanosecond)); !before.Equal(next) {
			t.Fatalf("%q in %s: %v comes after %v, but right before it is %v", expression, timezone, next, after, before)
		}
		again, err := schedule.ParseCron(c.String(), c.Timezone())
		if err != nil || again.String() != c.String() || !again.Next(after).Equal(next) {
			t.Fatalf("%q is written %q and reads back as %q, %v", expression, c, again, err)
		}
	})
}

func BenchmarkCronNext(b *testing.B) {
	for _, expression := range []string{"*/15 * * * *", "30 2 * * *", "0 9 * * 1-5", "0 0 29 2 *", "0 0 29 2 */7"} {
		b.Run(expression, func(b *testing.B) {
			c := mustParseCron(b, expression, "America/New_York")
			at := instant("2026-01-01 00:00")
			for b.Loop() {
				c.Next(at)
			}
		})
	}
}
