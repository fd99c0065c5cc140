package main

import (
	"io"

	"github.com/mvsched/mvsched/report"
)

// annotate has GitHub show a failure on the page of the build. It goes to stderr, so that what stdout is piped into, such as a
// step's summary, stays as it is; the runner reads commands from both.
func (a *app) annotate(kind, title, problem, hint string) {
	if a.getenv("GITHUB_ACTIONS") != "true" {
		return
	}
	text := report.OneLine(problem)
	if hint != "" {
		text += "\nhint: " + report.OneLine(hint)
	}
	_, _ = io.WriteString(a.annotations, report.Annotation(kind, title, text))
}
