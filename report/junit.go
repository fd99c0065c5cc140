package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"

	"github.com/mvsched/mvsched/schedule"
)

// JUnit's XML, as Jenkins' schema has it: what GitLab, Jenkins and the others read.
type junitSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Errors   int        `xml:"errors,attr"`
	Time     string     `xml:"time,attr"`
	Suite    junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Skipped *junitSkipped `xml:"skipped"`
	Failure *junitFailure `xml:"failure"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes one test case a view: failed where the view is failing or critical, skipped where there is nothing to
// judge yet, or a person has paused it. Its time is that of the last run.
func writeJUnit(w io.Writer, standings []schedule.Standing) error {
	suite := junitSuite{Name: "mvsched status", Tests: len(standings)}
	var total float64
	for _, s := range standings {
		test := junitCase{Name: exact(s.View), Class: "mvsched", Time: "0"}
		if s.Last != nil {
			took := s.Last.Duration().Seconds()
			test.Time = junitTime(took)
			total += took
		}
		switch state, health := s.Judge(nil); {
		case state == schedule.StateNever || state == schedule.StatePaused:
			suite.Skipped++
			test.Skipped = &junitSkipped{Message: string(state)}
		case state == schedule.StateFailing || health == schedule.Critical:
			suite.Failures++
			message := Trouble(s, state)
			test.Failure = &junitFailure{Message: message, Type: string(state), Text: message}
		}
		suite.Cases = append(suite.Cases, test)
	}
	suite.Time = junitTime(total)

	var buf bytes.Buffer
	buf.WriteString(xml.Header)
	encoder := xml.NewEncoder(&buf)
	encoder.Indent("", "  ")
	err := encoder.Encode(junitSuites{Name: "mvsched", Tests: suite.Tests, Failures: suite.Failures, Time: suite.Time, Suite: suite})
	if err != nil {
		return fmt.Errorf("encoding XML: %w", err)
	}
	buf.WriteString("\n")
	_, err = w.Write(buf.Bytes())
	return err
}

func junitTime(seconds float64) string { return strconv.FormatFloat(seconds, 'f', 3, 64) }

// Trouble says in a line what is wrong with a view that monitoring takes to be in such a state.
func Trouble(s schedule.Standing, state schedule.State) string { return exact(trouble(s, state)) }

func trouble(s schedule.Standing, state schedule.State) string {
	text := string(state)
	switch state {
	case schedule.StateMissing:
		return text + ": there is no such view any more"
	case schedule.StateLate:
		text += ": its data is " + age(s.Age) + " old"
		if s.MaxLag != nil {
			text += ", and may be " + schedule.FormatDuration(*s.MaxLag)
		}
		return text
	case schedule.StateNever:
		return text + ": it has a schedule, and has not been refreshed yet"
	case schedule.StateUnreachable:
		return text + ": its data gets up to " + schedule.FormatBeyond(*s.ReachableLag) + " old, and may be " + schedule.FormatDuration(*s.MaxLag)
	case schedule.StateSuspended:
		text += fmt.Sprintf(" after %d failed slots", s.ConsecutiveFailures)
	default: // the last run says it
	}
	if s.Last != nil {
		text += ": " + string(s.Last.Status)
		if why := detail(*s.Last); why != "" {
			text += ": " + why
		}
	}
	return text
}
