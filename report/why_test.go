package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func TestExplanation(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	since, until := now.Add(-45*time.Second), now.Add(3*time.Minute)
	e := schedule.Explanation{
		View: "public.\"a\x1b[31m\nb\"", State: schedule.StateDue, Now: now,
		Reasons: []schedule.Reason{
			{Code: schedule.WhyAwaited, Message: "it waits for\npublic.\u202ea", Since: &since, Until: &until, Views: []string{"public.a"}},
			{Code: schedule.WhyMethod, Message: "plain"},
		},
	}
	var out bytes.Buffer
	if err := (report.Printer{W: &out, Format: report.Table, Width: 40}).Explanation(e); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 6 || strings.ContainsAny(out.String(), "\x1b\u202e") || lines[0] != `public."a\u001b[31m\nb": due` ||
		!strings.HasSuffix(lines[2], "45s ago  in 3m") || !strings.HasSuffix(lines[4], "-") {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	if err := (report.Printer{W: &out, Format: report.JSON}).Explanation(e); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"since": "2026-03-01T11:59:15Z"`, `"until": "2026-03-01T12:03:00Z"`, `"until": null`, `"views": null`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}
