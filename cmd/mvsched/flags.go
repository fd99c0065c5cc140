package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

// settingsFlags are the flags that configure a schedule, as written; settings reads them.
type settingsFlags struct {
	every           string
	afterParents    bool
	onParentFailure string
	skipUnchanged   bool
	maxStaleness    string
	timeout         string
	lockTimeout     string
	strategy        string
	vacuum          string
	priority        int
	searchPath      string
	paused          bool
}

// register adds the flags that configure how a view is refreshed: those that `refresh` has too.
func (f *settingsFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.timeout, "timeout", "", "cancel the refresh when it takes longer (default 30m)")
	flags.StringVar(&f.lockTimeout, "lock-timeout", "",
		`wait so long for a lock ("default": 5s concurrently, 1.5s plain)`)
	flags.StringVar(&f.strategy, "strategy", "", "auto, concurrently or plain (default auto)")
	flags.StringVar(&f.searchPath, "search-path", "",
		`search_path for the refresh, "" for the session's own (PostgreSQL 17 and newer ignore it)`)
	completeWith(cmd, "strategy", string(schedule.Auto), string(schedule.Concurrently), string(schedule.Plain))
}

// registerSchedule adds the flags that make a schedule.
func (f *settingsFlags) registerSchedule(cmd *cobra.Command) {
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.every, "every", "", "refresh at this interval, from slot to slot")
	flags.BoolVar(&f.afterParents, "after-parents", false, "no clock: refresh whenever a view that it reads got new data")
	flags.StringVar(&f.onParentFailure, "on-parent-failure", "",
		"skip, or run on the old data, when a view that it reads has failed (default skip)")
	flags.BoolVar(&f.skipUnchanged, "skip-unchanged", false, "leave it alone when nothing that it reads has changed")
	flags.StringVar(&f.maxStaleness, "max-staleness", "",
		"with --skip-unchanged: refresh after this time all the same (default 1h)")
	completeWith(cmd, "on-parent-failure", string(schedule.ParentFailureSkip), string(schedule.ParentFailureRun))
	flags.StringVar(&f.vacuum, "vacuum", "", "vacuum and analyze the view after its refresh: auto, never or always (default auto)")
	flags.IntVar(&f.priority, "priority", 0, "higher goes first: one step is worth a minute of waiting")
	flags.BoolVar(&f.paused, "paused", false, "keep it from being refreshed until it is resumed")
	completeWith(cmd, "vacuum", string(schedule.VacuumAuto), string(schedule.VacuumNever), string(schedule.VacuumAlways))
}

// settings reads the flags that were given; the others stay nil.
func (f *settingsFlags) settings(cmd *cobra.Command) (s schedule.Settings, err error) {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	if s.Every, err = durationFlag(given("every"), "every", f.every, schedule.MaxDuration); err != nil {
		return s, err
	}
	if err = f.dependence(given, &s); err != nil {
		return s, err
	}
	if s.Timeout, err = durationFlag(given("timeout"), "timeout", f.timeout, schedule.MaxTimeout); err != nil {
		return s, err
	}
	if given("lock-timeout") && f.lockTimeout == "default" {
		s.LockTimeout = new(time.Duration)
	} else if s.LockTimeout, err = durationFlag(given("lock-timeout"), "lock-timeout", f.lockTimeout, schedule.MaxTimeout); err != nil {
		return s, err
	}
	if given("strategy") {
		strategy := schedule.Strategy(f.strategy)
		known := []schedule.Strategy{schedule.Auto, schedule.Concurrently, schedule.Plain}
		if !slices.Contains(known, strategy) {
			return s, &usageError{
				problem: fmt.Sprintf("--strategy: there is no strategy %q", f.strategy),
				hint:    "use auto, concurrently or plain",
			}
		}
		s.Strategy = &strategy
	}
	if given("vacuum") {
		vacuum := schedule.VacuumMode(f.vacuum)
		if !slices.Contains([]schedule.VacuumMode{schedule.VacuumAuto, schedule.VacuumNever, schedule.VacuumAlways}, vacuum) {
			return s, &usageError{
				problem: fmt.Sprintf("--vacuum: it cannot be %q", f.vacuum),
				hint:    "use auto, never or always",
			}
		}
		s.Vacuum = &vacuum
	}
	if given("priority") {
		if f.priority < -schedule.MaxPriority || f.priority > schedule.MaxPriority {
			return s, &usageError{problem: fmt.Sprintf("--priority: %d is not between -%d and %[2]d", f.priority, schedule.MaxPriority)}
		}
		s.Priority = &f.priority
	}
	if given("search-path") {
		if strings.ContainsRune(f.searchPath, 0) || len(f.searchPath) > maxSearchPath {
			return s, &usageError{problem: "--search-path: it is too long, or no text"}
		}
		s.SearchPath = &f.searchPath
	}
	if given("paused") {
		s.Paused = &f.paused
	}
	return s, nil
}

// dependence reads the flags that say how a view goes with those that it reads.
func (f *settingsFlags) dependence(given func(string) bool, s *schedule.Settings) (err error) {
	if given("after-parents") {
		switch {
		case f.afterParents && s.Every != nil:
			return &usageError{problem: "--every and --after-parents exclude each other", hint: "give one of the two"}
		case !f.afterParents && s.Every == nil:
			return &usageError{problem: "say when to refresh instead", hint: "for example --every 5m"}
		}
		s.AfterParents = &f.afterParents
	}
	if given("on-parent-failure") {
		failure := schedule.ParentFailure(f.onParentFailure)
		if failure != schedule.ParentFailureSkip && failure != schedule.ParentFailureRun {
			return &usageError{
				problem: fmt.Sprintf("--on-parent-failure: there is no choice %q", f.onParentFailure), hint: "use skip or run",
			}
		}
		s.OnParentFailure = &failure
	}
	if given("skip-unchanged") {
		s.SkipUnchanged = &f.skipUnchanged
	}
	s.MaxStaleness, err = durationFlag(given("max-staleness"), "max-staleness", f.maxStaleness, schedule.MaxDuration)
	return err
}

// maxSearchPath is the CHECK of the column, in bytes.
const maxSearchPath = 4000

func durationFlag(given bool, name, text string, most time.Duration) (*time.Duration, error) {
	if !given {
		return nil, nil //nolint:nilnil // not given
	}
	d, err := schedule.ParseDuration(text)
	if err != nil {
		var invalid *schedule.InvalidError
		if errors.As(err, &invalid) {
			invalid.What = "--" + name
		}
		return nil, err
	}
	if d > most {
		return nil, &usageError{problem: fmt.Sprintf("--%s: %s is longer than %s", name, text, schedule.FormatDuration(most))}
	}
	return &d, nil
}

// parseViews reads the views on the command line; a name given twice counts once.
func parseViews(args []string) ([]schedule.ViewName, error) {
	var views []schedule.ViewName
	for _, arg := range args {
		view, err := schedule.ParseViewName(arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(views, view) {
			views = append(views, view)
		}
	}
	return views, nil
}

// noArguments is what cobra's NoArgs means here.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasParent():
		return fmt.Errorf("`%s` takes no arguments, and was given %q", cmd.CommandPath(), args[0])
	default:
		return fmt.Errorf("there is no command %q", args[0])
	}
}

// someViews is what cobra's MinimumNArgs(1) means here.
func someViews(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name at least one view")
	}
	return nil
}

// oneView is what cobra's ExactArgs(1) means here.
func oneView(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("name one view")
	}
	return nil
}

// viewsOrAll reads the views of a command that also takes --all.
func viewsOrAll(args []string, all bool) ([]schedule.ViewName, error) {
	if all == (len(args) > 0) {
		return nil, &usageError{problem: "name the views, or say --all", hint: "one of the two"}
	}
	return parseViews(args)
}

func jobsFlag(cmd *cobra.Command, jobs *int, fallback int) {
	cmd.Flags().IntVarP(jobs, "jobs", "j", fallback, "how many refreshes at a time")
}

// maxJobs is far above what a server bears; it keeps a typing error from becoming 100,000 goroutines.
const maxJobs = 1000

func checkJobs(jobs int) error {
	if jobs < 1 || jobs > maxJobs {
		return &usageError{problem: fmt.Sprintf("--jobs: %d is not between 1 and %d", jobs, maxJobs)}
	}
	return nil
}

func completeWith(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag was registered two lines before
	}
}
