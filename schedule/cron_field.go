package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// cronField is what one of the five fields may hold.
type cronField struct {
	name      string
	low, high int
	names     []string // of the values from low on
	hint      string
}

var cronFields = [...]cronField{
	{name: "minute", low: 0, high: 59, hint: "0 to 59: 5, 0-29, */15 or 0,30"},
	{name: "hour", low: 0, high: 23, hint: "0 to 23: 5, 8-18, */2 or 6,18"},
	{name: "day of month", low: 1, high: 31, hint: "1 to 31: 5, 1-7, */2 or 1,15"},
	{
		name: "month", low: 1, high: 12, hint: "1 to 12 or jan to dec: 5, jan-mar, */3 or 1,7",
		names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"},
	},
	{
		name: "day of week", low: 0, high: 6, hint: "0 to 7 or sun to sat, where 0 and 7 are Sunday: 5, mon-fri or 0,6",
		names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"},
	},
}

const fiveFields = `write five fields, minute, hour, day of month, month and day of week, as in "30 2 * * *", or @hourly, @daily, @weekly, @monthly or @yearly`

var cronMacros = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// cronExpression splits an expression, or what an @ stands for, into its fields, and gives it back in lower case with
// single blanks.
func cronExpression(written string) (canonical string, fields []string, err error) {
	refuse := func(problem, hint string) (string, []string, error) {
		return "", nil, invalidCron(written, problem, hint)
	}
	if len(written) > maxCronLength {
		return refuse(fmt.Sprintf("it is longer than %d bytes", maxCronLength), fiveFields)
	}
	fields = strings.Fields(strings.ToLower(written))
	switch {
	case len(fields) == 0:
		return refuse("it is empty", fiveFields)
	case strings.HasPrefix(fields[0], "tz=") || strings.HasPrefix(fields[0], "cron_tz="):
		return refuse("it holds a time zone", "leave the zone out here, and write --timezone")
	case fields[0] == "@every":
		return refuse("it is an interval", "write --every")
	case cronMacros[fields[0]] != "" && len(fields) == 1:
		return fields[0], strings.Fields(cronMacros[fields[0]]), nil
	case strings.HasPrefix(fields[0], "@"):
		return refuse(fmt.Sprintf("%q is not known", strings.Join(fields, " ")), fiveFields)
	case len(fields) == len(cronFields)+1:
		return refuse("it has 6 fields", "there is no field for seconds or years: "+fiveFields)
	case len(fields) != len(cronFields):
		return refuse(fmt.Sprintf("it has %d of 5 fields", len(fields)), fiveFields)
	}
	return strings.Join(fields, " "), fields, nil
}

// parse reads a list of items: a value, a range, a star, each with or without a step. The bits of the set are the values.
func (f cronField) parse(text string) (set uint64, problem, hint string) {
	for item := range strings.SplitSeq(text, ",") {
		from, to, step, problem, hint := f.item(item)
		if problem != "" {
			if hint == "" {
				hint = f.hint
			}
			return 0, f.name + " " + problem, f.name + ": " + hint
		}
		for value := from; value <= to; value += step {
			set |= 1 << f.known(value)
		}
	}
	return set, "", ""
}

// item reads one item of a list. As with the library, 5/15 is 5-59/15.
func (f cronField) item(item string) (from, to, step int, problem, hint string) {
	refuse := func(problem, hint string) (int, int, int, string, string) { return 0, 0, 0, problem, hint }
	if item == "" {
		return refuse("has an empty item in its list", "")
	}
	values, stepText, hasStep := strings.Cut(item, "/")
	first, last, isRange := strings.Cut(values, "-")
	switch values {
	case "*":
		from, to = f.low, f.high
	default:
		for _, value := range []struct {
			text string
			into *int
		}{{first, &from}, {last, &to}} {
			if value.into == &to && !isRange {
				continue
			}
			n, ok := f.value(value.text)
			if !ok {
				return refuse(fmt.Sprintf("%q cannot be read", item), "")
			}
			if f.known(n) < f.low || f.known(n) > f.high {
				return refuse(fmt.Sprintf("%s is out of range", value.text), "")
			}
			*value.into = n
		}
		switch {
		case !isRange && hasStep:
			to = max(from, f.high)
		case !isRange:
			to = from
		case last == "sun" && from > 0: // fri-sun
			to = 7
		}
	}
	if from > to {
		return refuse(fmt.Sprintf("%s goes backwards", values), fmt.Sprintf("write two ranges: %d-%d,%d-%d", from, f.high, f.low, to))
	}
	step = 1
	if hasStep {
		n, err := strconv.Atoi(stepText)
		switch {
		case !isDigits(stepText):
			return refuse(fmt.Sprintf("%q cannot be read", item), "")
		case err == nil && n == 0:
			return refuse(fmt.Sprintf("%s has a step of 0", item), "")
		case err != nil || n > to-from+1:
			return refuse(fmt.Sprintf("%s has a step that is larger than its range", item), fmt.Sprintf("a step of 1 to %d", to-from+1))
		}
		step = n
	}
	return from, to, step, "", ""
}

// value reads a number without a sign, or a name. A number that is too large for an int is out of any range.
func (f cronField) value(text string) (int, bool) {
	if i := slices.Index(f.names, text); i >= 0 {
		return f.low + i, true
	}
	if !isDigits(text) {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return f.high + 100, true
	}
	return n, true
}

// known is the value as the library knows it: Sunday is 0, and not 7 also.
func (f cronField) known(value int) int {
	if value == 7 && f.high == 6 {
		return 0
	}
	return value
}

// all is the set of every value.
func (f cronField) all() uint64 { return 1<<(f.high+1) - 1<<f.low }

// list writes a set as the library reads it.
func (f cronField) list(set uint64) string {
	var values []string
	for value := f.low; value <= f.high; value++ {
		if set>>value&1 == 1 {
			values = append(values, strconv.Itoa(value))
		}
	}
	return strings.Join(values, ",")
}

func isDigits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

func invalidCron(written, problem, hint string) *InvalidError {
	return &InvalidError{What: "cron", Value: shorten(written), Problem: problem, Hint: hint}
}

// shorten keeps an error message readable, whatever was handed in.
func shorten(value string) string {
	const most = 80
	if len(value) <= most {
		return value
	}
	return strings.ToValidUTF8(value[:most], "") + "…"
}
