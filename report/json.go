package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// The JSON keys are what scripts rely on. Times are RFC 3339 in UTC, durations numbers of seconds, what is absent null.

type standingJSON struct {
	View                string       `json:"view"`
	State               string       `json:"state"`
	DataAsOf            *time.Time   `json:"data_as_of"`
	AgeSeconds          *float64     `json:"age_seconds"`
	MaxLagSeconds       *float64     `json:"max_lag_seconds"`
	NextRunAt           *time.Time   `json:"next_run_at"`
	Last                *lastJSON    `json:"last"`
	ConsecutiveFailures int          `json:"consecutive_failures"`
	Queue               string       `json:"queue"`
	Parents             []string     `json:"parents"`
	SizeBytes           int64        `json:"size_bytes"`
	Running             *runningJSON `json:"running"`
	Kind                string       `json:"kind"`
	RowsLeft            *int64       `json:"rows_left"`
	RowsPerSecond       *float64     `json:"rows_per_second"`
	SecondsLeft         *float64     `json:"seconds_left"`
	RowsSetAside        *int64       `json:"rows_set_aside"`
}

type runningJSON struct {
	ElapsedSeconds float64       `json:"elapsed_seconds"`
	UsualSeconds   *float64      `json:"usual_seconds"`
	BlockedBy      []blockerJSON `json:"blocked_by"`
}

type blockerJSON struct {
	PID  int    `json:"pid"`
	User string `json:"user"`
}

type lastJSON struct {
	Status          string     `json:"status"`
	Reason          *string    `json:"reason"`
	Method          *string    `json:"method"`
	ScheduledAt     *time.Time `json:"scheduled_at"`
	StartedAt       time.Time  `json:"started_at"`
	EndedAt         *time.Time `json:"ended_at"`
	DurationSeconds *float64   `json:"duration_seconds"`
	RowsInserted    *int64     `json:"rows_inserted"`
	RowsDeleted     *int64     `json:"rows_deleted"`
	ErrorName       *string    `json:"error_name"`
	ErrorMessage    *string    `json:"error_message"`
}

type executionJSON struct {
	ID      int64   `json:"id"`
	View    string  `json:"view"`
	Trigger string  `json:"trigger"`
	Attempt int     `json:"attempt"`
	Worker  *string `json:"worker"`
	lastJSON
	MethodReason *string    `json:"method_reason"`
	DataAsOf     *time.Time `json:"data_as_of"`
	TerminatedAt *time.Time `json:"terminated_at"`
	RowsKept     *int64     `json:"rows_kept"`
}

type scheduleJSON struct {
	View                string              `json:"view"`
	EverySeconds        *float64            `json:"every_seconds"`
	AfterSeconds        *float64            `json:"after_seconds"`
	Cron                *string             `json:"cron"`
	AfterParents        bool                `json:"after_parents"`
	OnChange            bool                `json:"on_change"`
	MaxLagSeconds       *float64            `json:"max_lag_seconds"`
	Timezone            string              `json:"timezone"`
	DebounceSeconds     *float64            `json:"debounce_seconds"`
	AtMostEverySeconds  *float64            `json:"at_most_every_seconds"`
	JitterSeconds       *float64            `json:"jitter_seconds"`
	Between             *string             `json:"between"`
	Retries             int                 `json:"retries"`
	SuspendAfter        *int                `json:"suspend_after"`
	OnParentFailure     string              `json:"on_parent_failure"`
	SkipUnchanged       bool                `json:"skip_unchanged"`
	MaxStalenessSeconds float64             `json:"max_staleness_seconds"`
	TimeoutSeconds      float64             `json:"timeout_seconds"`
	LockTimeoutSeconds  *float64            `json:"lock_timeout_seconds"`
	Strategy            string              `json:"strategy"`
	Vacuum              string              `json:"vacuum"`
	Queue               string              `json:"queue"`
	Group               *string             `json:"group"`
	Priority            int                 `json:"priority"`
	SearchPath          *string             `json:"search_path"`
	Settings            schedule.Parameters `json:"settings"`
	NextRunAt           *time.Time          `json:"next_run_at"`
	PausedAt            *time.Time          `json:"paused_at"`
	PausedReason        *string             `json:"paused_reason"`
	SuspendedAt         *time.Time          `json:"suspended_at"`
	SuspendedReason     *string             `json:"suspended_reason"`
	ConsecutiveFailures int                 `json:"consecutive_failures"`
	Kind                string              `json:"kind"`
	MergeFrom           *string             `json:"merge_from"`
	Key                 []string            `json:"key"`
	MergeWindow         *string             `json:"window"`
	FullEverySeconds    *float64            `json:"full_every_seconds"`
	Query               *string             `json:"query"`
	Call                *string             `json:"call"`
	Columns             []string            `json:"columns"`
	Batch               *int                `json:"batch"`
	Parallel            *int                `json:"parallel"`
}

type dueJSON struct {
	View        string     `json:"view"`
	ScheduledAt *time.Time `json:"scheduled_at"`
}

type findingJSON struct {
	Severity string  `json:"severity"`
	Check    string  `json:"check"`
	View     *string `json:"view"`
	Message  string  `json:"message"`
	Fix      *string `json:"fix"`
}

// writeJSON writes one indented list; no rows are [], not null.
func writeJSON[T, J any](w io.Writer, rows []T, convert func(T) J) error {
	list := make([]J, 0, len(rows))
	for _, row := range rows {
		list = append(list, convert(row))
	}
	return encodeJSON(w, list)
}

// writeJSONLines writes the objects of the list, each on a line of its own.
func writeJSONLines[T, J any](w io.Writer, rows []T, convert func(T) J) error {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	for _, row := range rows {
		if err := encoder.Encode(convert(row)); err != nil {
			return fmt.Errorf("encoding JSON: %w", err)
		}
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// encodeJSON writes the whole of it, or nothing, and leaves names as they are: a program has to find the views by them.
func encodeJSON(w io.Writer, v any) error {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("encoding JSON: %w", err)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

func toStandingJSON(s schedule.Standing) standingJSON {
	j := standingJSON{
		View: s.View, State: string(s.State), DataAsOf: utc(s.DataAsOf), AgeSeconds: secondsOf(s.Age),
		MaxLagSeconds: secondsOf(s.MaxLag), NextRunAt: utc(s.NextRunAt), ConsecutiveFailures: s.ConsecutiveFailures, Queue: s.Queue, SizeBytes: s.SizeBytes,
		Parents: s.Parents, Kind: kindOf(s.Materialization),
	}
	if s.Last != nil {
		last := toLastJSON(*s.Last)
		j.Last = &last
	}
	if s.RunningFor != nil {
		j.Running = &runningJSON{ElapsedSeconds: *secondsOf(s.RunningFor), UsualSeconds: secondsOf(s.Usual), BlockedBy: []blockerJSON{}}
		for _, b := range s.Blockers {
			j.Running.BlockedBy = append(j.Running.BlockedBy, blockerJSON{PID: b.PID, User: b.User})
		}
	}
	j.RowsLeft, j.RowsPerSecond, j.SecondsLeft, j.RowsSetAside = s.RowsLeft, s.RowsPerSecond, secondsOf(s.TimeLeft()), s.RowsSetAside
	return j
}

func toLastJSON(e schedule.Execution) lastJSON {
	j := lastJSON{
		Status: string(e.Status), Reason: e.Reason, Method: (*string)(e.Method), ScheduledAt: utc(e.ScheduledAt),
		StartedAt: e.StartedAt.UTC(), EndedAt: utc(e.EndedAt), RowsInserted: e.RowsInserted, RowsDeleted: e.RowsDeleted,
		ErrorName: e.ErrorName, ErrorMessage: e.ErrorMessage,
	}
	if e.EndedAt != nil {
		d := e.Duration()
		j.DurationSeconds = secondsOf(&d)
	}
	return j
}

func toExecutionJSON(e schedule.Execution) executionJSON {
	return executionJSON{
		ID: e.ID, View: e.View, Trigger: e.Trigger, Attempt: e.Attempt, Worker: e.Worker, lastJSON: toLastJSON(e),
		MethodReason: e.MethodReason, DataAsOf: utc(e.DataAsOf), TerminatedAt: utc(e.TerminatedAt), RowsKept: e.RowsKept,
	}
}

func toScheduleJSON(s schedule.Schedule) scheduleJSON {
	j := scheduleJSON{
		View: s.View, EverySeconds: secondsOf(s.Every), AfterSeconds: secondsOf(s.After), Cron: s.Cron,
		AfterParents: s.Kind == schedule.KindAfterParents, OnChange: s.Kind == schedule.KindOnChange, MaxLagSeconds: secondsOf(s.MaxLag),
		Timezone: s.Timezone, DebounceSeconds: secondsOf(s.Debounce), AtMostEverySeconds: secondsOf(s.AtMostEvery),
		JitterSeconds: secondsOf(s.Jitter), Retries: s.Retries, SuspendAfter: s.SuspendAfter,
		OnParentFailure: string(s.OnParentFailure), SkipUnchanged: s.SkipUnchanged, MaxStalenessSeconds: *secondsOf(&s.MaxStaleness),
		TimeoutSeconds: *secondsOf(&s.Timeout), LockTimeoutSeconds: secondsOf(s.LockTimeout), Strategy: string(s.Strategy),
		Vacuum: string(s.Vacuum), Queue: s.Queue, Group: s.Group, Priority: s.Priority, SearchPath: s.SearchPath, Settings: s.Parameters, NextRunAt: utc(s.NextRunAt),
		PausedAt: utc(s.PausedAt), PausedReason: s.PausedReason, SuspendedAt: utc(s.SuspendedAt),
		SuspendedReason: s.SuspendedReason, ConsecutiveFailures: s.ConsecutiveFailures,
		Kind: kindOf(s.Materialization), MergeFrom: s.MergeSource, Key: s.MergeKey, MergeWindow: s.MergeWindow,
		FullEverySeconds: secondsOf(s.FullEvery), Columns: s.Filled,
	}
	if f := s.Filling; f != nil {
		j.Query, j.Call, j.Batch, j.Parallel = f.Query, f.Call, f.BatchRows, f.Lanes
	}
	if s.Window != nil {
		between := s.Window.String()
		j.Between = &between
	}
	return j
}

func toDueJSON(d schedule.Due) dueJSON { return dueJSON{View: d.View, ScheduledAt: utc(d.ScheduledAt)} }

func toFindingJSON(f schedule.Finding) findingJSON {
	j := findingJSON{Severity: string(f.Severity), Check: f.Check, Message: f.Message, Fix: f.Fix}
	if f.View != "" {
		j.View = &f.View
	}
	return j
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// secondsOf is d in seconds, to the microsecond.
func secondsOf(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := math.Round(d.Seconds()*1e6) / 1e6
	return &s
}
