package schedule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // a container from scratch and Windows have no zones of their own

	"github.com/robfig/cron/v3"
)

// maxCronLength bounds what people, and rows of the table, may hand us as an expression, in bytes.
const maxCronLength = 255

// Cron is a cron expression in a time zone. It is compared with what the clocks of the zone show, and clocks are changed;
// so there are two rules.
//
// Where the hour field leaves out any hour, every wall-clock time that the expression names happens exactly once: at the
// first instant at which the clock shows that time or a later one. A time that is jumped over happens right after
// the jump; of a time that comes twice the first counts. Only a day that the zone left out altogether, as Samoa did with
// 30 December 2011, has no times.
//
// Where the expression names every hour, it happens at every instant at which the clock shows a minute that it names, so
// that the spacing is one of real time: `0 * * * *` is 60 minutes apart also when an hour is missing or comes twice. Where
// clocks are changed by half an hour, as on Lord Howe Island, one spacing is 30 or 90 minutes.
//
// The arithmetic is robfig/cron's, and only in UTC: it would skip and double runs where clocks change.
type Cron struct {
	expression string
	timezone   string
	location   *time.Location
	schedule   *cron.SpecSchedule
	everyHour  bool
}

// ParseCron reads five fields, minute, hour, day of month, month and day of week, or one of @hourly, @daily, @midnight,
// @weekly, @monthly, @yearly and @annually, and the name of a time zone of the tz database. What it refuses, it refuses
// with an *InvalidError.
func ParseCron(expression, timezone string) (Cron, error) {
	canonical, five, err := cronExpression(expression)
	if err != nil {
		return Cron{}, err
	}
	var lists [len(cronFields)]string
	var sets [len(cronFields)]uint64
	for i, text := range five {
		set, problem, hint := cronFields[i].parse(text)
		if problem != "" {
			return Cron{}, invalidCron(expression, problem, hint)
		}
		sets[i], lists[i] = set, cronFields[i].list(set)
	}
	schedule, err := parseStandard(strings.Join(lists[:], " "))
	if err != nil {
		return Cron{}, invalidCron(expression, err.Error(), fiveFields)
	}
	markStar(&schedule.Dom, five[2])
	markStar(&schedule.Dow, five[4])

	location, err := loadZone(timezone)
	if err != nil {
		return Cron{}, err
	}
	c := Cron{expression: canonical, timezone: timezone, location: location, schedule: schedule, everyHour: sets[1] == cronFields[1].all()}
	if c.from(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Cron{}, invalidCron(expression, "it never comes: no month that it names has such a day",
			"change the day of month or the month: February has 29 days at the most, April, June, September and November have 30")
	}
	return c, nil
}

// String is the expression in lower case, with single blanks.
func (c Cron) String() string { return c.expression }

// Timezone is the name of the time zone.
func (c Cron) Timezone() string { return c.timezone }

// Next is the first instant after the given one at which the expression happens, in UTC. What ParseCron takes always has
// one: the zero time comes from the zero Cron only.
func (c Cron) Next(after time.Time) time.Time {
	switch {
	case c.schedule == nil:
		return time.Time{}
	case c.everyHour:
		return c.nextShown(after)
	default:
		return c.nextReached(after)
	}
}

// nextReached is Next by the first rule. The wall-clock times in question are later than what the clock shows at after:
// that one and all before it have been reached.
func (c Cron) nextReached(after time.Time) time.Time {
	wall := wallClock(after.In(c.location))
	for {
		wall = c.from(wall.Add(1))
		if wall.IsZero() {
			return wall
		}
		if at := c.reached(wall); at.After(after) && !c.leftOut(wall) {
			return at
		}
	}
}

// nextShown is Next by the second rule. From one change of the clocks to the next they run evenly.
func (c Cron) nextShown(after time.Time) time.Time {
	for begin := after.Add(1).In(c.location); ; {
		wall := c.from(wallClock(begin))
		if wall.IsZero() {
			return wall
		}
		at := wall.Add(-offset(begin))
		end := evenUntil(begin)
		if end.IsZero() || at.Before(end) {
			return at
		}
		begin = end
	}
}

// maxOffset is more than any zone has ever been away from UTC.
const maxOffset = 16 * time.Hour

// reached is the first instant at which the zone's clock shows a wall-clock time or a later one.
func (c Cron) reached(wall time.Time) time.Time {
	for begin := wall.Add(-maxOffset).In(c.location); ; {
		at := wall.Add(-offset(begin))
		if at.Before(begin.UTC()) {
			return begin.UTC() // the clock was put forward over it
		}
		end := evenUntil(begin)
		if end.IsZero() || at.Before(end) {
			return at
		}
		begin = end
	}
}

// leftOut says whether the zone's clock was put forward over the whole day of a wall-clock time.
func (c Cron) leftOut(wall time.Time) bool {
	midnight := wall.Truncate(Day)
	return c.reached(midnight).Equal(c.reached(midnight.Add(Day)))
}

// from is the first wall-clock time, at or after the given one, that the expression names; the zero time if there is
// none. Wall-clock times are written as instants of UTC. robfig/cron gives up after five years, and 29 February may be
// eight years off, on a certain weekday forty.
func (c Cron) from(wall time.Time) time.Time {
	minute := wall.Truncate(time.Minute)
	if minute.Before(wall) {
		minute = minute.Add(time.Minute)
	}
	for range 45 / 5 {
		next := c.schedule.Next(minute.Add(-time.Second))
		if !next.IsZero() {
			return next
		}
		minute = time.Date(minute.Year()+5, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return time.Time{}
}

// evenUntil is an instant up to which the clock of t's location runs evenly; the zero time if it does for ever.
func evenUntil(t time.Time) time.Time {
	_, end := t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		// On 31 December of a leap year, where a rule and no list says when clocks change (golang.org/issue/81583).
		end = time.Date(t.UTC().Year()+1, 1, 1, 0, 0, 0, 0, time.UTC).In(t.Location())
	}
	return end
}

// wallClock is what the clock of t's location shows at t, written as an instant of UTC.
func wallClock(t time.Time) time.Time { return t.UTC().Add(offset(t)) }

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// parseStandard is the library's parser, which is known to panic, and gets nothing but lists of numbers from us.
func parseStandard(lists string) (schedule *cron.SpecSchedule, err error) {
	defer func() {
		if r := recover(); r != nil {
			schedule, err = nil, fmt.Errorf("it cannot be read: %v", r)
		}
	}()
	parsed, err := cron.ParseStandard(lists)
	if err != nil {
		return nil, err
	}
	schedule, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, errors.New("it cannot be read")
	}
	return schedule, nil
}

// markStar marks a field that begins with a star. As in classic cron, a day has to match both the day of month and the
// day of week when one of these begins with a star (also `*/2`), and one of them when neither does. The library knows
// the mark, but has its own idea of when to set it.
func markStar(set *uint64, text string) {
	if strings.HasPrefix(text, "*") {
		*set |= 1 << 63
	}
}

// zoneName keeps to the spelling of the tz database. Go would also load files that lie beside the zones, such as
// localtime or right/UTC (which counts leap seconds), and where file names know no case europe/berlin, which is no zone
// elsewhere.
var zoneName = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)*$`)

func loadZone(name string) (*time.Location, error) {
	hint := "write the name of a zone of the tz database: UTC, Europe/Berlin, America/New_York"
	problem := "there is no such time zone"
	switch {
	case name == "":
		problem = "it is empty"
	case strings.EqualFold(name, "local"), strings.EqualFold(name, "localtime"):
		problem = "it is another zone on every machine"
	case zoneName.MatchString(name) && len(name) <= maxCronLength:
		if location, err := time.LoadLocation(name); err == nil {
			return location, nil
		}
		fallthrough
	default:
		if right := capitalized(name); right != name && zoneName.MatchString(right) {
			if _, err := time.LoadLocation(right); err == nil {
				hint = "names of time zones mind capitals: " + right
			}
		}
	}
	return nil, &InvalidError{What: "timezone", Value: shorten(name), Problem: problem, Hint: hint}
}

// capitalized guesses how the name of a zone is written: America/New_York, and UTC.
func capitalized(name string) string {
	if len(name) <= 3 {
		return strings.ToUpper(name)
	}
	parts := regexp.MustCompile(`[^/_-]+[/_-]?`).FindAllString(strings.ToLower(name), -1)
	for i, part := range parts {
		parts[i] = strings.ToUpper(part[:1]) + part[1:]
	}
	return strings.Join(parts, "")
}
