package report_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/mvsched/mvsched/report"
)

// runnerCommand is how GitHub's runner reads a command, and these are its escapes.
var (
	runnerCommand  = regexp.MustCompile(`^::error title=([^:,]*)::([^\r\n]*)\n$`)
	runnerData     = strings.NewReplacer("%0D", "\r", "%0A", "\n", "%25", "%")
	runnerProperty = strings.NewReplacer("%0D", "\r", "%0A", "\n", "%3A", ":", "%2C", ",", "%25", "%")
)

// Whatever a view is called and an error says, an annotation is one command, and says that.
func TestAnnotation(t *testing.T) {
	for _, text := range hostile {
		line := report.Annotation(report.AnnotateError, "mvsched: "+text, report.OneLine(text)+"\nhint: x")
		read := runnerCommand.FindStringSubmatch(line)
		if read == nil || strings.Count(line, "\n") != 1 || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), forbidden) || strings.Contains(line, "##[") {
			t.Errorf("%q", line)
			continue
		}
		if got, want := runnerProperty.Replace(read[1]), report.Clean(report.OneLine("mvsched: "+text)); got != want {
			t.Errorf("title %q, want %q", got, want)
		}
		shown := strings.TrimSpace(report.Clean(report.OneLine(text)))
		if got, hint, _ := strings.Cut(runnerData.Replace(read[2]), "\n"); strings.TrimSpace(got) != shown || hint != "hint: x" {
			t.Errorf("text %q, %q, want %q", got, hint, shown)
		}
	}
}
