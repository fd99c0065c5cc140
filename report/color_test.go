package report_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

var sgr = regexp.MustCompile("\x1b\\[[0-9]+m")

// Colours change nothing but the colour, and only words of ours have any, whatever a view is called.
func TestColors(t *testing.T) {
	inUTC(t)
	for name, write := range lists {
		for _, width := range []int{0, 60, 80, 200} {
			plain := printed(t, report.Table, width, write)
			var laidOut, out bytes.Buffer
			if err := write(report.Printer{W: &laidOut, Format: report.Table, Width: width, Color: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := report.NewColorWriter(&out).Write(laidOut.Bytes()); err != nil {
				t.Fatal(err)
			}
			if got := sgr.ReplaceAllString(out.String(), ""); got != plain {
				t.Errorf("%s at %d:\n%s\nwant\n%s", name, width, got, plain)
			}
			for line := range strings.Lines(out.String()) {
				codes := sgr.FindAllString(line, -1)
				if n := len(codes) - strings.Count(line, "\x1b[0m"); n > 2 || n > 0 && codes[len(codes)-1] != "\x1b[0m" {
					t.Errorf("%s: %d colours in %q", name, n, line)
				}
			}
		}
	}
	for text, want := range map[string]string{
		"\x1b[31mfailed\x1b[0m \x1b[5mx": "\x1b[31mfailed\x1b[0m \\u001b[5mx", "::error::x\n\x1b[2J": "\\u003a:error::x\n\\u001b[2J",
	} {
		var out bytes.Buffer
		if _, err := report.NewColorWriter(&out).Write([]byte(text)); err != nil || out.String() != want {
			t.Errorf("%v: %q, want %q", err, out.String(), want)
		}
	}
}

// What pads the last column would make a line too long for the terminal that it was made to fit.
func TestColorsEndWithTheLine(t *testing.T) {
	s := standing("public.v")
	s.Last = &schedule.Execution{Status: schedule.Failed}
	for _, colored := range []bool{false, true} {
		var out strings.Builder
		if err := (report.Printer{W: &out, Format: report.Table, Color: colored}).Status([]schedule.Standing{s}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(sgr.ReplaceAllString(out.String(), "")) {
			if strings.HasSuffix(line, " \n") {
				t.Errorf("colored: %t: %q", colored, line)
			}
		}
	}
}

// What is critical is red, as on the page.
func TestColorsOfTrouble(t *testing.T) {
	for state, color := range map[schedule.State]string{
		schedule.StateMissing: "31", schedule.StateSuspended: "31", schedule.StateFailing: "31", schedule.StateLate: "31",
		schedule.StateNever: "33", schedule.StateBlocked: "33",
	} {
		s := standing("public.v")
		s.State = state
		var out strings.Builder
		if err := (report.Printer{W: &out, Format: report.Table, Color: true}).Status([]schedule.Standing{s}); err != nil {
			t.Fatal(err)
		}
		if want := "\x1b[" + color + "m" + string(state) + "\x1b[0m"; !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in %q", want, out.String())
		}
	}
}
