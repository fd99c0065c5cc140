package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/mvsched/mvsched/schedule"
)

// settingsFlags are the flags that configure a schedule, as written; settings reads them.
type settingsFlags struct {
	every           string
	after           string
	cron            string
	afterParents    bool
	onChange        bool
	maxLag          string
	timezone        string
	debounce        string
	atMostEvery     string
	jitter          string
	between         string
	retries         int
	suspendAfter    int
	queue           string
	group           string
	onParentFailure string
	skipUnchanged   bool
	maxStaleness    string
	timeout         string
	lockTimeout     string
	strategy        string
	vacuum          string
	priority        int
	searchPath      string
	set             []string
	paused          bool
	mergeWindow     string
	fullEvery       string
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
func (f *settingsFlags) registerSchedule(a *app, cmd *cobra.Command) {
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.every, "every", "", "refresh at this interval, from slot to slot")
	flags.StringVar(&f.after, "after", "", "refresh so long after the end of the last run")
	flags.StringVar(&f.cron, "cron", "", `refresh by a cron expression: "0 3 * * *", @daily`)
	flags.BoolVar(&f.afterParents, "after-parents", false, "no clock: refresh whenever a view that it reads got new data")
	flags.BoolVar(&f.onChange, "on-change", false, "no clock: refresh when what it reads has changed, or mvsched.request_refresh() asks")
	flags.StringVar(&f.maxLag, "max-lag", "", "refresh as late as possible for its data never to be older than this")
	flags.StringVar(&f.timezone, "timezone", "", "time zone of --cron and --between (default UTC)")
	flags.StringVar(&f.debounce, "debounce", "", `with --on-change: refresh together what changes within this time ("default": 0.5s for requests)`)
	flags.StringVar(&f.atMostEvery, "at-most-every", "", `with --on-change: leave this time between two refreshes ("default": 10s without a pause)`)
	flags.StringVar(&f.jitter, "jitter", "", `spread the runs by up to half of this before and after their slots; "none"`)
	flags.StringVar(&f.between, "between", "", `begin refreshes only in this part of the day: 22:00-06:00; "none"`)
	flags.IntVar(&f.retries, "retries", 0, "try a slot again so often after an error that may pass (default 3)")
	flags.IntVar(&f.suspendAfter, "suspend-after", 0, "give up on it after so many failed slots in a row; 0 for never (default 0)")
	flags.StringVar(&f.queue, "queue", "", `the queue whose workers refresh it (default "default")`)
	flags.StringVar(&f.group, "group", "", "refresh it together with the other views of this group, in one transaction, also when nothing has changed; '' takes it out")
	flags.StringVar(&f.onParentFailure, "on-parent-failure", "",
		"skip, or run on the old data, when a view that it reads has failed (default skip)")
	flags.BoolVar(&f.skipUnchanged, "skip-unchanged", false, "leave it alone when nothing that it reads has changed")
	flags.StringVar(&f.maxStaleness, "max-staleness", "",
		"with --skip-unchanged or --on-change: refresh after this time all the same (default 1h)")
	flags.StringArrayVar(&f.set, "set", nil,
		"set a setting of the server for the refresh: NAME=VALUE, such as work_mem=256MB; NAME= takes it away (may be repeated)")
	a.completeSettings(cmd)
	a.completeQueues(cmd)
	register(cmd, "timezone", completeZones)
	completeWith(cmd, "on-parent-failure", string(schedule.ParentFailureSkip), string(schedule.ParentFailureRun))
	flags.StringVar(&f.vacuum, "vacuum", "", "vacuum and analyze the view after its refresh: auto, never or always (default auto)")
	flags.IntVar(&f.priority, "priority", 0, "higher goes first: one step is worth a minute of waiting")
	flags.BoolVar(&f.paused, "paused", false, "keep it from being refreshed until it is resumed")
	flags.StringVar(&f.mergeWindow, "window", "",
		`of a merge table: refresh only the rows for which this is true: "day >= current_date - 7"; "" for all`)
	flags.StringVar(&f.fullEvery, "full-every", "", `of a merge table with a window: refresh all rows that often; "never"`)
	completeWith(cmd, "vacuum", string(schedule.VacuumAuto), string(schedule.VacuumNever), string(schedule.VacuumAlways))
}

// settings reads the flags that were given; the others stay nil.
func (f *settingsFlags) settings(cmd *cobra.Command) (s schedule.Settings, err error) {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	if err = f.spec(given, &s); err != nil {
		return s, err
	}
	if err = f.clock(given, &s); err != nil {
		return s, err
	}
	if err = f.failure(given, &s); err != nil {
		return s, err
	}
	if err = f.dependence(given, &s); err != nil {
		return s, err
	}
	if s.Timeout, err = durationFlag(given("timeout"), "timeout", f.timeout, schedule.MaxTimeout); err != nil {
		return s, err
	}
	if s.LockTimeout, err = resettable(given("lock-timeout"), "lock-timeout", f.lockTimeout, "default", schedule.MaxTimeout); err != nil {
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
	if s.Parameters, err = parameters(f.set); err != nil {
		return s, err
	}
	if given("paused") {
		s.Paused = &f.paused
	}
	if given("window") {
		if len(f.mergeWindow) > schedule.MaxExpression {
			return s, &usageError{problem: fmt.Sprintf("--window: it is longer than %d bytes", schedule.MaxExpression)}
		}
		s.MergeWindow = &f.mergeWindow
	}
	s.FullEvery, err = resettable(given("full-every"), "full-every", f.fullEvery, "never", schedule.MaxDuration)
	return s, err
}

// spec reads the flags that say when to refresh: one of them at the most.
func (f *settingsFlags) spec(given func(string) bool, s *schedule.Settings) (err error) {
	var specs []string
	for _, name := range []string{"every", "after", "cron", "after-parents", "on-change", "max-lag"} {
		if given(name) && (name != "after-parents" || f.afterParents) && (name != "on-change" || f.onChange) {
			specs = append(specs, "--"+name)
		}
	}
	switch {
	case len(specs) > 1:
		return &usageError{
			problem: fmt.Sprintf("%s and %s exclude each other", specs[0], specs[1]), hint: "give one of the two",
		}
	case len(specs) == 0 && (given("after-parents") || given("on-change")):
		return &usageError{problem: "say when to refresh instead", hint: "for example --every 5m"}
	}
	if s.Every, err = durationFlag(given("every"), "every", f.every, schedule.MaxDuration); err != nil {
		return err
	}
	if s.After, err = durationFlag(given("after"), "after", f.after, schedule.MaxDuration); err != nil {
		return err
	}
	if s.MaxLag, err = durationFlag(given("max-lag"), "max-lag", f.maxLag, schedule.MaxDuration); err != nil {
		return err
	}
	if f.afterParents {
		s.AfterParents = &f.afterParents
	}
	if f.onChange {
		s.OnChange = &f.onChange
	}
	if given("cron") {
		s.Cron = &f.cron
	}
	return nil
}

// clock reads the flags that belong to some of the ways to say when.
func (f *settingsFlags) clock(given func(string) bool, s *schedule.Settings) (err error) {
	if given("timezone") {
		s.Timezone = &f.timezone
	}
	if given("cron") || given("timezone") {
		expression, timezone := f.cron, f.timezone
		if !given("cron") {
			expression = "@daily" // a zone alone is read with an expression that is one
		}
		if !given("timezone") {
			timezone = "UTC"
		}
		cron, err := schedule.ParseCron(expression, timezone)
		if invalid := (*schedule.InvalidError)(nil); errors.As(err, &invalid) {
			invalid.What = "--" + invalid.What
		}
		if err != nil {
			return err
		}
		if given("cron") {
			expression = cron.String()
			s.Cron = &expression
		}
	}
	if s.Debounce, err = resettable(given("debounce"), "debounce", f.debounce, "default", schedule.Day); err != nil {
		return err
	}
	if s.AtMostEvery, err = resettable(given("at-most-every"), "at-most-every", f.atMostEvery, "default", schedule.MaxDuration); err != nil {
		return err
	}
	if s.Jitter, err = resettable(given("jitter"), "jitter", f.jitter, "none", schedule.MaxDuration); err != nil {
		return err
	}
	for flag, spec := range map[string]*time.Duration{"--every": s.Every, "--max-lag": s.MaxLag} {
		if s.Jitter != nil && spec != nil && *s.Jitter > *spec {
			return &usageError{problem: "--jitter: it is longer than " + flag, hint: "it spreads a slot by up to half of it to both sides"}
		}
	}
	if given("between") {
		s.Window = &schedule.Window{}
		if f.between != "none" {
			if *s.Window, err = schedule.ParseWindow(f.between); err != nil {
				return named(err, "--between")
			}
		}
	}
	return nil
}

// failure reads the flags that say what is done about failures, and by whom.
func (f *settingsFlags) failure(given func(string) bool, s *schedule.Settings) error {
	if given("retries") {
		if f.retries < 0 || f.retries > schedule.MaxRetries {
			return &usageError{problem: fmt.Sprintf("--retries: %d is not between 0 and %d", f.retries, schedule.MaxRetries)}
		}
		s.Retries = &f.retries
	}
	if given("suspend-after") {
		if f.suspendAfter < 0 || f.suspendAfter > schedule.MaxSuspendAfter {
			return &usageError{problem: fmt.Sprintf("--suspend-after: %d is not between 0 and %d", f.suspendAfter, schedule.MaxSuspendAfter)}
		}
		s.SuspendAfter = &f.suspendAfter
	}
	if given("queue") {
		if err := checkQueue(f.queue); err != nil {
			return err
		}
		s.Queue = &f.queue
	}
	if given("group") {
		if len(f.group) > schedule.MaxGroupName || strings.ContainsFunc(f.group, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return &usageError{
				problem: fmt.Sprintf("--group: %q is no name for a group", f.group),
				hint:    fmt.Sprintf("use at most %d bytes of letters, digits and dashes: reporting", schedule.MaxGroupName),
			}
		}
		s.Group = &f.group
	}
	return nil
}

// complete refuses flags of a new schedule that belong to another one that was not given.
func (f *settingsFlags) complete(s schedule.Settings) error {
	change := s.OnChange != nil && *s.OnChange
	for _, c := range []struct {
		given, fits bool
		flag, needs string
	}{
		{s.Debounce != nil, change, "--debounce", "--on-change"},
		{s.AtMostEvery != nil, change, "--at-most-every", "--on-change"},
	} {
		if c.given && !c.fits {
			return &usageError{problem: c.flag + " is for " + c.needs, hint: "leave it out, or use " + c.needs}
		}
	}
	return nil
}

// fits refuses flags that do not go with the kind of schedule that is given with them.
func (f *settingsFlags) fits(s schedule.Settings) error {
	if s.When() == "" || s.OnChange != nil && *s.OnChange {
		return nil
	}
	for flag, given := range map[string]*time.Duration{"--debounce": s.Debounce, "--at-most-every": s.AtMostEvery} {
		if given != nil && *given > 0 {
			return &usageError{problem: flag + " is for --on-change", hint: "leave it out, or use --on-change"}
		}
	}
	return nil
}

// checkQueue refuses names that a list of queues could not hold.
func checkQueue(name string) error {
	if name == "" || len(name) > schedule.MaxQueueName || strings.ContainsFunc(name, func(r rune) bool {
		return r == ',' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) {
		return &usageError{
			problem: fmt.Sprintf("--queue: %q is no name for a queue", name), hint: "use letters, digits and dashes: default, heavy",
		}
	}
	return nil
}

// dependence reads the flags that say how a view goes with those that it reads.
func (f *settingsFlags) dependence(given func(string) bool, s *schedule.Settings) (err error) {
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

// parameters reads NAME=VALUE; nil for none.
func parameters(texts []string) (schedule.Parameters, error) {
	var set schedule.Parameters
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !found || name == "" || strings.ContainsRune(text, 0) {
			return nil, &usageError{
				problem: fmt.Sprintf("--set: %q is not NAME=VALUE", text), hint: "for example --set work_mem=256MB, or --set work_mem= to take it away",
			}
		}
		if set == nil {
			set = schedule.Parameters{}
		}
		set[name] = schedule.ParameterValue(value)
	}
	return set, nil
}

// maxSearchPath is the CHECK of the column, in bytes.
const maxSearchPath = 4000

// resettable reads a duration flag that also takes a word, for which it returns 0.
func resettable(given bool, name, text, word string, most time.Duration) (*time.Duration, error) {
	if given && text == word {
		return new(time.Duration), nil
	}
	return durationFlag(given, name, text, most)
}

// named says in which flag what is wrong was.
func named(err error, flag string) error {
	if invalid := (*schedule.InvalidError)(nil); errors.As(err, &invalid) {
		invalid.What = flag
	}
	return err
}

func durationFlag(given bool, name, text string, most time.Duration) (*time.Duration, error) {
	if !given {
		return nil, nil //nolint:nilnil // not given
	}
	d, err := schedule.ParseDuration(text)
	if err != nil {
		return nil, named(err, "--"+name)
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

func jobsFlag(cmd *cobra.Command, jobs *int) {
	cmd.Flags().IntVarP(jobs, "jobs", "j", 2, "how many refreshes at a time")
}

// maxJobs is far above what a server bears; it keeps a typing error from becoming 100,000 goroutines.
const maxJobs = 1000

func checkJobs(jobs int) error {
	if jobs < 1 || jobs > maxJobs {
		return &usageError{problem: fmt.Sprintf("--jobs: %d is not between 1 and %d", jobs, maxJobs)}
	}
	return nil
}
