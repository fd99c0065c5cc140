package report_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/mvsched/mvsched/report"
	"github.com/mvsched/mvsched/schedule"
)

// What is within the noise is called no gain, and a way that failed has no time.
func TestMeasurements(t *testing.T) {
	measured := []schedule.Measurement{
		{
			View: "public.v", Method: schedule.MethodConcurrently, Present: true, Runs: 3, Median: 3800 * time.Millisecond, Faster: 1,
			RowsInserted: ptr(int64(7)), RowsDeleted: ptr(int64(5)),
		},
		{View: "public.v", Method: schedule.MethodPlain, Runs: 3, Median: 770 * time.Millisecond, Faster: 4.94, Clear: true, Fix: ptr("mvsched set v"), Price: "readers"},
		{View: "public.v", Method: schedule.MethodConcurrently, NullColumn: true, Runs: 1, Median: 2 * time.Second, Faster: 1.9},
		{View: "public.v", Method: schedule.MethodConcurrently, Parameters: schedule.Parameters{"work_mem": "64MB"}, Runs: 3, Median: 7600 * time.Millisecond, Faster: 0.5, Clear: true},
		{View: "public.v", Method: schedule.MethodConcurrently, Problem: "division by zero"},
	}
	const want = `REFRESH                                          RUNS   TAKES  AGAINST NOW              INSERTED  DELETED  HOW            PRICE    PROBLEM
concurrently                                        3   3.8 s  as it is                        7        5  -              -        -
plain                                               3  770 ms  4.9 times as fast               -        -  mvsched set v  readers  -
concurrently, with a column that is always NULL     1   2.0 s  about the same                  -        -  -              -        -
concurrently, work_mem=64MB                         3   7.6 s  takes 2.0 times as long         -        -  -              -        -
concurrently                                        0       -  fails                           -        -  -              -        division by zero
`
	var buf bytes.Buffer
	if err := (report.Printer{W: &buf, Format: report.Table}).Measurements(measured); err != nil || buf.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), want)
	}

	const narrow = `concurrently
  3.8 s, as it is, runs: 3, inserted: 7, deleted: 5

plain
  770 ms, 4.9 times as fast, runs: 3
  price: readers
  how: mvsched set v

concurrently, with a column that is always NULL
  2.0 s, about the same, runs: 1

concurrently, work_mem=64MB
  7.6 s, takes 2.0 times as long, runs: 3

concurrently
  fails
  problem: division by zero
`
	buf.Reset()
	if err := (report.Printer{W: &buf, Format: report.Table, Width: 80}).Measurements(measured); err != nil || buf.String() != narrow {
		t.Errorf("%v\n%s\nwant\n%s", err, buf.String(), narrow)
	}
}
