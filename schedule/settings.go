package schedule

import (
	"errors"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Settings are what a person may configure of a schedule. In Add, nil takes the column's default; in Set, nil leaves
// what is there. For LockTimeout, Debounce, AtMostEvery and Jitter, a pointer to 0 means the default, or none; for
// SearchPath, one to "" the session's own; for Group, one to "" none; for SuspendAfter, one to 0 never; for Window, one to its zero value none.
//
// When to refresh is exactly one of Every, After, Cron, AfterParents, OnChange and MaxLag; in Set, the one replaces the
// other.
type Settings struct {
	Every           *time.Duration // from slot to slot
	After           *time.Duration // from the end of a run to the start of the next
	Cron            *string        // see ParseCron
	AfterParents    *bool
	OnChange        *bool
	MaxLag          *time.Duration
	Timezone        *string // of Cron and Window
	Debounce        *time.Duration
	AtMostEvery     *time.Duration
	Jitter          *time.Duration
	Window          *Window
	Retries         *int
	SuspendAfter    *int
	OnParentFailure *ParentFailure
	SkipUnchanged   *bool
	MaxStaleness    *time.Duration
	Timeout         *time.Duration
	LockTimeout     *time.Duration
	Strategy        *Strategy
	Vacuum          *VacuumMode
	Queue           *string
	Group           *string
	Priority        *int
	SearchPath      *string
	Parameters      Parameters // of the server, for the refresh alone; "" takes one away
	Paused          *bool
	Columns         *Columns

	// Of a merge table; a pointer to "" means all rows, one to 0 never.
	MergeWindow *string        // refresh the rows for which this is true
	FullEvery   *time.Duration // with MergeWindow: refresh all rows that often

	merge  *Merge  // what AddMerge was given
	source *string // the canonical name of its view
}

// kind is the one way in which the settings say when to refresh; "": none.
func (s Settings) kind() Kind {
	switch {
	case s.Every != nil:
		return KindEvery
	case s.After != nil:
		return KindAfter
	case s.Cron != nil:
		return KindCron
	case s.AfterParents != nil && *s.AfterParents:
		return KindAfterParents
	case s.OnChange != nil && *s.OnChange:
		return KindOnChange
	case s.MaxLag != nil:
		return KindMaxLag
	}
	return ""
}

// arguments are those of addSQL and setSQL.
func (s *Store) arguments(settings Settings) pgx.NamedArgs {
	args := pgx.NamedArgs{
		"kind":              nullable(settings.kind()),
		"every":             seconds(settings.Every),
		"after":             seconds(settings.After),
		"cron":              settings.Cron,
		"max_lag":           seconds(settings.MaxLag),
		"timezone":          settings.Timezone,
		"debounce":          seconds(settings.Debounce),
		"at_most_every":     seconds(settings.AtMostEvery),
		"jitter":            seconds(settings.Jitter),
		"window":            settings.Window != nil,
		"window_start":      nil,
		"window_end":        nil,
		"retries":           settings.Retries,
		"suspend_after":     settings.SuspendAfter,
		"on_parent_failure": settings.OnParentFailure,
		"skip_unchanged":    settings.SkipUnchanged,
		"max_staleness":     seconds(settings.MaxStaleness),
		"timeout":           seconds(settings.Timeout),
		"lock_timeout":      seconds(settings.LockTimeout),
		"strategy":          settings.Strategy,
		"vacuum":            settings.Vacuum,
		"queue":             settings.Queue,
		"group":             settings.Group,
		"priority":          settings.Priority,
		"search_path":       settings.SearchPath,
		"settings":          settings.Parameters.changes(),
		"paused":            settings.Paused,
		"columns_query":     nil,
		"columns_call":      nil,
		"batch_rows":        nil,
		"lanes":             nil,
		"now":               s.now(),
	}
	args["of"], args["source"], args["key"], args["create"] = MaterializedView, settings.source, []string(nil), false
	args["merge_window"], args["full_every"] = settings.MergeWindow, seconds(settings.FullEvery)
	if settings.merge != nil {
		args["of"], args["key"], args["create"] = MergeTable, settings.merge.Key, settings.merge.Create
	}
	if w := settings.Window; w != nil && *w != (Window{}) {
		args["window_start"], args["window_end"] = w.Start.String(), w.End.String()
	}
	if c := settings.Columns; c != nil {
		args["of"], args["columns_query"], args["columns_call"], args["batch_rows"], args["lanes"] = MaterializedColumns, c.Query, c.Call, c.BatchRows, c.Lanes
	}
	return args
}

func nullable[T ~string](s T) *T {
	if s == "" {
		return nil
	}
	return &s
}

// refusedSetting gives settings their names that only the server can judge, or only together with what is there already.
func refusedSetting(err error, settings Settings) error {
	var pgErr *pgconn.PgError
	if refused := refusedMerge(err, settings); refused != nil {
		return refused
	}
	if refused := refusedDefinition(err); refused != nil && (settings.MergeWindow != nil || settings.merge != nil) {
		return refused
	}
	switch {
	case !errors.As(err, &pgErr):
	case pgErr.ConstraintName == "refresh_settings_are_allowed" || pgErr.ConstraintName == "refresh_settings_are_short":
		return &InvalidError{What: "setting", Value: settings.Parameters.String(), Problem: pgErr.Message, Hint: pgErr.Hint}
	case settings.Columns != nil:
		return refusedColumns(pgErr)
	case pgErr.Code == pgerrcode.InvalidParameterValue && settings.SearchPath != nil:
		return &InvalidError{
			What: "search_path", Value: *settings.SearchPath, Problem: "the server does not accept it",
			Hint: `write schemas as in SQL, separated by commas: cinema, "Sales 2026", public`,
		}
	case pgErr.Code == pgerrcode.InvalidParameterValue && settings.Timezone != nil:
		return &InvalidError{What: "time zone", Value: *settings.Timezone, Problem: "the server does not know it"}
	case pgErr.ConstraintName == "debounce_is_for_on_change" && settings.Debounce != nil:
		return notOnChange("--debounce", *settings.Debounce)
	case pgErr.ConstraintName == "at_most_every_is_for_on_change" && settings.AtMostEvery != nil:
		return notOnChange("--at-most-every", *settings.AtMostEvery)
	case pgErr.ConstraintName == "jitter_fits_the_interval" && settings.Jitter != nil:
		return &InvalidError{
			What: "--jitter", Value: FormatDuration(*settings.Jitter), Problem: "it is longer than the interval or the lag",
			Hint: "shorten it, or take it away: --jitter none",
		}
	case pgErr.ConstraintName == "jitter_fits_the_interval" && settings.Every != nil:
		return shorterThanJitter("--every", *settings.Every)
	case pgErr.ConstraintName == "jitter_fits_the_interval" && settings.MaxLag != nil:
		return shorterThanJitter("--max-lag", *settings.MaxLag)
	case pgErr.Code == pgerrcode.FeatureNotSupported || pgErr.Code == pgerrcode.InvalidParameterValue:
		return &DefinitionError{Problem: pgErr.Message, Hint: pgErr.Hint} // what the triggers refuse of any kind of schedule
	}
	return err
}

func notOnChange(flag string, d time.Duration) error {
	return &InvalidError{
		What: flag, Value: FormatDuration(d), Problem: "it is for --on-change, and the schedule is another one",
		Hint: "leave it out, or use --on-change",
	}
}

func shorterThanJitter(flag string, d time.Duration) error {
	return &InvalidError{
		What: flag, Value: FormatDuration(d), Problem: "the jitter that the schedule has is longer",
		Hint: "give a shorter one with --jitter, or take it away: --jitter none",
	}
}
