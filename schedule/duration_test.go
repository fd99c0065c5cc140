package schedule_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "1d": schedule.Day, "1d12h": 36 * time.Hour,
		"2w": 14 * schedule.Day, "1m500ms": time.Minute + 500*time.Millisecond, "1s": time.Second, "1000ms": time.Second,
		"1 day": schedule.Day, "00:30:00": 30 * time.Minute, "1 day 02:30": schedule.Day + 150*time.Minute,
		"2 hours 30 minutes": 150 * time.Minute, "5 minutes": 5 * time.Minute, "1 week": 7 * schedule.Day, "24:00:00": schedule.Day,
		"90 seconds": 90 * time.Second, " 5  MINUTES ": 5 * time.Minute, "3650 days": schedule.MaxDuration, "00:00:01.5": 1500 * time.Millisecond,
		"1 hr": time.Hour, "10 mins": 10 * time.Minute,
	} {
		got, err := schedule.ParseDuration(in)
		if err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}

	for _, in := range []string{
		"", " ", "0", "0s", "00:00:00", "-5m", "- 5 minutes", "999ms", "1us", "infinity", "Inf", "NaN", "1 month", "2 months", "1 year",
		"1 mon", "1 century", "3651 days", "87601h", "178000000 years", "1h 30 minutes", "1 day 1h", "5", "5 parsecs", "5,5h", "1e3s", "P1D", "00:60:00",
		"00:00:60", "1 day -1 hour", "5 minutes ago", "1h30", "h", "::", "1 day 1", "99999999999999999999 days", "1mo", "1y",
	} {
		got, err := schedule.ParseDuration(in)
		var invalid *schedule.InvalidError
		if !errors.As(err, &invalid) || got != 0 {
			t.Errorf("ParseDuration(%q) = %v, %v; want an InvalidError and nothing else", in, got, err)
		}
	}
}

// What has passed a limit looks longer than the limit, however little it has.
func TestFormatBeyond(t *testing.T) {
	for d, want := range map[time.Duration]string{
		45 * time.Millisecond: "45ms", time.Second + time.Microsecond: "1.1s", 1500 * time.Millisecond: "1.5s", 9950 * time.Millisecond: "10s",
		time.Minute + 1: "1m1s", 2 * time.Hour: "2h", 2*time.Hour + time.Millisecond: "2h1m", schedule.Day + time.Second: "1d1h",
	} {
		if got := schedule.FormatBeyond(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
		if limit := d.Truncate(time.Second); limit < d && schedule.FormatBeyond(d) == schedule.FormatDuration(limit) {
			t.Errorf("%v looks like %v", d, limit)
		}
	}
}

func TestFormatNegative(t *testing.T) {
	for d, want := range map[time.Duration][2]string{
		-90 * time.Second: {"-1m30s", "-1m30s"}, -1500 * time.Millisecond: {"-1.5s", "-1.5s"}, math.MinInt64: {"-106751d23h47m16.854775s", "-106751d23h"},
	} {
		if got := [2]string{schedule.FormatDuration(d), schedule.FormatSpan(d)}; got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

// The law: what is taken is within the bounds, and FormatDuration writes it in a way that reads back the same.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"90s", "1 day 02:30:00", "1h30m", "1 month", "-1s", "0.5s", "1d1d", "3650 days", "1.0000001s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := schedule.ParseDuration(s)
		if err != nil {
			if d != 0 {
				t.Fatalf("%q: error %v and %v", s, err, d)
			}
			return
		}
		if d < schedule.MinDuration || d > schedule.MaxDuration {
			t.Fatalf("%q: %v is out of bounds", s, d)
		}
		again, err := schedule.ParseDuration(schedule.FormatDuration(d))
		if err != nil || again != d {
			t.Fatalf("%q: %v is written %q and reads back as %v, %v", s, d, schedule.FormatDuration(d), again, err)
		}
	})
}

// Where a spelling is PostgreSQL's, PostgreSQL means the same by it.
func TestParseDurationAsTheServerDoes(t *testing.T) {
	pool := pgtest.New(t)
	for _, in := range []string{
		"1 day", "00:30:00", "1 day 02:30", "2 hours 30 minutes", "5 minutes", "1 week", "90 seconds", "3650 days", "1h30m", "1d", "90s",
		"1.5h", "10 mins", "1 hr", "00:00:01.5",
	} {
		d, err := schedule.ParseDuration(in)
		if err != nil {
			t.Fatal(err)
		}
		var seconds float64
		err = pool.QueryRow(t.Context(), "select extract(epoch from $1::text::mvsched.duration)::float8", in).Scan(&seconds)
		if err != nil || seconds != d.Seconds() {
			t.Errorf("%q: %v here, %v s there, %v", in, d, seconds, err)
		}
	}
}
