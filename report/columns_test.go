package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

func TestStatusOfColumns(t *testing.T) {
	running := standing("public.events")
	running.State, running.Materialization = schedule.StateRunning, schedule.MaterializedColumns
	running.RunningFor, running.RowsLeft = ptr(time.Minute), ptr(int64(30_000))
	running.RowsPerSecond, running.RowsSetAside = ptr(500.0), ptr(int64(3))
	var buf bytes.Buffer
	p := report.Printer{W: &buf, Format: report.Table, Width: 150}
	if err := p.Status([]schedule.Standing{running, standing("public.v")}); err != nil {
		t.Fatal(err)
	}
	running.ColumnsQueued, running.RowsSetAside = []string{"n", "total"}, nil
	if err := p.Status([]schedule.Standing{running}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"30000, and column n, total", "ROWS LEFT", "30000 (3 set aside)", "██████████░░░░░░░░░░ 1m, 500 rows/s, 1m to go"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("there is no %q in\n%s", want, buf.String())
		}
	}
}

func TestLiveLineOfADrain(t *testing.T) {
	screen := make(chan string)
	live := report.NewLive(writerFunc(func(p []byte) { screen <- string(p) }), sized(100, 24))
	live.Started(schedule.Claim{ExecutionID: 7, View: "public.events"})
	live.Progressed(schedule.Progress{ExecutionID: 7, Done: 300, Left: 100, SetAside: 2})
	line := <-screen
	for _, want := range []string{"public.events  ███████████████░░░░░ 100 rows left, ", " rows/s, ", " to go, 2 set aside"} {
		if !strings.Contains(line, want) {
			t.Errorf("there is no %q in %q", want, line)
		}
	}
	go func() {
		for range screen {
			continue // what is drawn at the end
		}
	}()
	live.Stop()
	close(screen)
}
