package schedule

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours: intervals are computed in UTC, where every day has as many.
const Day = 24 * time.Hour

// The bounds of every duration that a schedule holds; domain mvsched.duration has the same.
const (
	MinDuration = time.Second
	MaxDuration = 3650 * Day
)

// MaxTimeout bounds what the server keeps as 32-bit milliseconds (statement_timeout, lock_timeout).
const MaxTimeout = 24 * Day

// Go's spelling, with days and weeks added: 90s, 1h30m, 1d12h, 1.5h.
var (
	goDuration = regexp.MustCompile(`^(?:\d+(?:\.\d+)?(?:w|d|h|m|s|ms))+$`)
	goTerm     = regexp.MustCompile(`(\d+(?:\.\d+)?)([a-z]+)`)
)

// PostgreSQL's spelling: 1 day, 2 hours 30 minutes, 1 day 02:30:00, 00:30:00.
var (
	pgDuration = regexp.MustCompile(`^((?:\d+(?:\.\d+)? [a-z]+ ?)*)(?:(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?)?$`)
	pgTerm     = regexp.MustCompile(`(\d+(?:\.\d+)?) ([a-z]+)`)
)

var unitSeconds = map[string]float64{
	"ms": 0.001, "millisecond": 0.001, "msec": 0.001,
	"s": 1, "sec": 1, "second": 1,
	"m": 60, "min": 60, "minute": 60,
	"h": 3600, "hr": 3600, "hour": 3600,
	"d": 86400, "day": 86400,
	"w": 604800, "week": 604800,
}

// ParseDuration reads a duration in Go's spelling (90s, 1h30m, 1d) or in PostgreSQL's (1 day, 2 hours 30 minutes,
// 00:30:00), not in a mix of both, rounded to microseconds. A day is 24 hours. Months and years, which have no fixed
// length, are refused, as is everything below MinDuration or above MaxDuration, with an *InvalidError.
func ParseDuration(s string) (time.Duration, error) {
	refuse := func(problem, hint string) (time.Duration, error) {
		return 0, &InvalidError{What: "duration", Value: s, Problem: problem, Hint: hint}
	}
	const spellings = `write for example 90s, 1h30m, "1 day" or 00:30:00`

	text := strings.ToLower(strings.Join(strings.Fields(s), " "))
	var seconds float64
	var terms [][]string
	switch {
	case text == "":
		return refuse("it is empty", spellings)
	case goDuration.MatchString(text):
		terms = goTerm.FindAllStringSubmatch(text, -1)
	case pgDuration.MatchString(text):
		match := pgDuration.FindStringSubmatch(text)
		terms = pgTerm.FindAllStringSubmatch(match[1], -1)
		clock, ok := clockSeconds(match[2], match[3], match[4])
		if !ok {
			return refuse("minutes and seconds end at 59", "")
		}
		seconds = clock
	case strings.HasPrefix(text, "-"):
		return refuse("it is negative", "")
	case strings.Trim(text, "0123456789.") == "":
		return refuse("it has no unit", spellings)
	default:
		return refuse("it is neither Go's spelling nor PostgreSQL's", spellings)
	}

	for _, term := range terms {
		unit := term[2]
		if len(unit) > 2 {
			unit = strings.TrimSuffix(unit, "s")
		}
		if isCalendarUnit(unit) {
			return refuse("months and years have no fixed length", "write days: 30 days, 365 days")
		}
		perUnit, known := unitSeconds[unit]
		if !known {
			return refuse(fmt.Sprintf("%q is no unit of time", term[2]), spellings)
		}
		count, err := strconv.ParseFloat(term[1], 64)
		if err != nil {
			return refuse("a number in it cannot be read", spellings)
		}
		seconds += count * perUnit
	}

	switch {
	case seconds < MinDuration.Seconds():
		return refuse("it is shorter than 1 second", "")
	case seconds > MaxDuration.Seconds():
		return refuse("it is longer than 10 years (3650 days)", "")
	}
	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond, nil
}

func isCalendarUnit(unit string) bool {
	switch unit {
	case "mon", "month", "y", "yr", "year", "decade", "century", "centurie", "millennium":
		return true
	}
	return false
}

// clockSeconds adds up hh:mm[:ss]; all empty is 0.
func clockSeconds(hours, minutes, seconds string) (float64, bool) {
	var total float64
	for i, text := range []string{hours, minutes, seconds} {
		if text == "" {
			continue
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || i > 0 && n >= 60 {
			return 0, false
		}
		total += n * [...]float64{3600, 60, 1}[i]
	}
	return total, true
}

// FormatDuration writes a duration in the shortest way that ParseDuration reads back: 1d, 1h30m, 90s as 1m30s, 2.5s.
// It knows nothing below a microsecond.
func FormatDuration(d time.Duration) string {
	if d < 0 {
		return "-" + FormatDuration(negated(d))
	}
	var b strings.Builder
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"d", Day}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := d / unit.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteString(unit.name)
			d -= n * unit.size
		}
	}
	if seconds := d.Truncate(time.Microsecond).Seconds(); seconds > 0 || b.Len() == 0 {
		b.WriteString(strconv.FormatFloat(seconds, 'f', -1, 64))
		b.WriteByte('s')
	}
	return b.String()
}

// FormatSpan is a duration at a glance, two units at the most: 850ms, 1.2s, 45s, 4m48s, 3h2m, 5d.
func FormatSpan(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + FormatSpan(negated(d))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Truncate(spanUnit(d)).Seconds())
	default:
		return FormatDuration(d.Truncate(spanUnit(d)))
	}
}

// negated is -d; the least duration has no opposite.
func negated(d time.Duration) time.Duration { return -max(d, -math.MaxInt64) }

// FormatBeyond is FormatSpan of what has passed a limit, rounded up: never does it look as if it had not.
func FormatBeyond(d time.Duration) string {
	if d < time.Second {
		return FormatSpan(d)
	}
	unit := spanUnit(d)
	return FormatDuration((d + unit - 1).Truncate(unit))
}

// spanUnit is the smaller of the two units of a span from a second on.
func spanUnit(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Second:
		return 100 * time.Millisecond
	case d < time.Hour:
		return time.Second
	case d < Day:
		return time.Minute
	default:
		return time.Hour
	}
}
