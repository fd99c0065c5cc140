package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are what chaos is told.
type options struct {
	time    time.Duration // how long to go on
	storm   time.Duration // of each episode
	seed    uint64
	first   int    // the number of the first episode
	last    int    // and of the last one; 0: as many as there is time for
	theme   string // only this one
	kinds   bool   // merge tables, columns and groups in the place of the views, whatever the theme
	waiting int    // how many faults wait for their phase at a time; 0: as many as the theme says
	tally   string // a file that the counts are added to
	binary  string // of mvsched; "": build it
	verbose bool
	crowd   int  // instead of all that: so many views that are due at once
	sample  bool // one episode each of some themes, for the tests
}

func main() {
	var o options
	var episode int
	flag.DurationVar(&o.time, "time", 10*time.Minute, "go on for so long")
	flag.DurationVar(&o.storm, "storm", 30*time.Second, "how long each episode's storm is")
	flag.Uint64Var(&o.seed, "seed", 0, "what the faults follow from; 0: draw one")
	flag.IntVar(&episode, "episode", 0, "only this one")
	flag.StringVar(&o.theme, "theme", "", "only episodes of this theme")
	flag.BoolVar(&o.kinds, "kinds", false, "merge tables, columns and groups in the place of the usual views")
	flag.IntVar(&o.waiting, "injectors", 0, "how many faults wait for their phase at a time; 0: as many as the theme says")
	flag.StringVar(&o.tally, "tally", "", "add the counts to this file, and print the tables of all that has come together in it")
	flag.IntVar(&o.crowd, "crowd", 0, "no faults, but so many views due at once, refreshed by few workers and by many")
	flag.StringVar(&o.binary, "mvsched", "", "the program to try; built when it is not given")
	flag.BoolVar(&o.verbose, "v", false, "say more")
	flag.Parse()
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	o.first = 1
	if episode > 0 {
		o.first, o.last = episode, episode
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangUpEnds()
	if o.crowd > 0 {
		table, err := crowd(ctx, o)
		fmt.Println(table)
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	t, err := chaos(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	fmt.Println(t.markdown())
	if len(t.Violations) > 0 || len(t.Episodes) == 0 {
		os.Exit(1)
	}
}

// chaos runs episodes until the time is over.
func chaos(ctx context.Context, o options) (*tally, error) {
	say := func(string) {}
	if o.verbose {
		say = func(s string) { fmt.Fprintln(os.Stderr, s) }
	}
	t, err := load(o.tally, o.seed)
	if err != nil {
		return nil, err
	}
	chosen, needs, err := o.themes()
	if err != nil {
		return nil, err
	}
	if done, err := inside(ctx, needs); done {
		if err == nil {
			os.Exit(0)
		}
		return nil, err
	}
	var s site
	defer s.close()
	if err := s.open(ctx, o.binary, needs, say); err != nil {
		return nil, err
	}
	t.Server = s.server.Version()
	fmt.Fprintf(os.Stderr, "PostgreSQL %s, seed %d\n", s.server.Version(), o.seed)
	if needs == endurance {
		o.storm, o.last = o.time, o.first
	}
	end := time.Now().Add(o.time)
	for i := o.first; ctx.Err() == nil && (o.last > 0 || time.Now().Before(end)) && (o.last == 0 || i <= o.last); i++ {
		e := &episode{index: i, seed: o.seed, theme: chosen[(i-1)%len(chosen)], site: s, say: say}
		began := time.Now()
		if err := e.run(ctx, o.storm); err != nil {
			if ctx.Err() != nil {
				fmt.Fprintf(os.Stderr, "interrupted: episode %d does not count\n", i)
				break
			}
			keepEvidence(e)
			return t, fmt.Errorf("episode %d (%s), seed %d: %w", i, e.theme.name, o.seed, err)
		}
		if needs == endurance {
			t.Soak = e.judgeSoak()
		}
		t.add(e)
		if err := t.save(o.tally); err != nil {
			return nil, err
		}
		fmt.Fprintf(os.Stderr, "episode %d %s: %d faults of %d, %d claims, %d refreshes, %d reads, all well after %s, %d violations, %s; exits %v\n",
			i, e.theme.name, len(e.landings), e.drawn, e.claims, e.successes, e.reads.Load(), e.quiet.Round(10*time.Millisecond), len(e.violations),
			time.Since(began).Round(time.Second), e.exits)
		for _, v := range e.violations {
			fmt.Fprintf(os.Stderr, "  VIOLATION %s\n", strings.ReplaceAll(v, "\n", "\n    "))
		}
		if len(e.violations) > 0 {
			fmt.Fprintf(os.Stderr, "  again: %s\n", o.again(i))
			keepEvidence(e)
		} else {
			_ = execute(ctx, s.server, "postgres", `drop database `+e.database+` with (force)`)
		}
	}
	return t, nil
}

// themes are those that are asked for, and what they need: of several, only such as need nothing.
func (o options) themes() (chosen []*theme, needs need, err error) {
	for _, th := range themes() {
		if o.theme == "" && (!o.sample || th.sampled) && th.needs == nothing || th.name == o.theme && o.theme != "" {
			if o.waiting > 0 && !th.lone {
				th.injectors = o.waiting
			}
			if o.kinds {
				th.views, th.alone = theTargets(), true
			}
			chosen, needs = append(chosen, th), th.needs
		}
	}
	if len(chosen) == 0 {
		err = fmt.Errorf("there is no theme %q", o.theme)
	}
	return chosen, needs, err
}

// again is the command that runs one episode again.
func (o options) again(episode int) string {
	command := fmt.Sprintf("make chaos SEED=%d EPISODE=%d STORM=%s", o.seed, episode, o.storm)
	if o.theme != "" {
		command += " THEME=" + o.theme
	}
	if o.kinds {
		command += " KINDS=1"
	}
	if o.waiting > 0 {
		command += fmt.Sprintf(" INJECTORS=%d", o.waiting)
	}
	return command
}

// keepEvidence saves what the server has logged of an episode.
func keepEvidence(e *episode) {
	log, err := os.ReadFile(e.server.LogFile())
	name := filepath.Join(os.TempDir(), fmt.Sprintf("mvsched-chaos-%d-%d.log", e.seed, e.index))
	if err == nil && os.WriteFile(name, log, 0o600) == nil {
		fmt.Fprintf(os.Stderr, "  the server's log: %s\n", name)
	}
}
