package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// tally is what came of the episodes; it is kept in a file as JSON, so that several runs can be added up.
type tally struct {
	Seeds      []uint64
	Server     string
	Episodes   map[string]int            // by theme
	Landed     map[string]map[string]int // by kind and phase
	Results    map[string]map[string]int // by kind and how the execution that was hit has ended
	Drawn      int
	Claims     int
	Refreshes  int
	Ends       map[string]int            // of executions, by status
	Targets    map[string]map[string]int // by what they are of, the ends of executions
	Hit        map[string]int            // by that, the faults that have hit one
	Reads      int64                     // of what must never be torn
	Exits      map[string]int            // of processes
	Stops      []float64                 // seconds from a signal to the exit
	Quiet      []float64                 // seconds from the end of a storm until every view was refreshed
	Recoveries map[string][]float64
	Violations []string
	Soak       string `json:",omitempty"` // what the last one has read
}

// noClaim is what a fault had for an execution that hit a connection, or a worker, without one.
const noClaim = "no claim"

func newTally(seed uint64) *tally {
	return &tally{
		Seeds: []uint64{seed}, Episodes: map[string]int{}, Landed: map[string]map[string]int{}, Results: map[string]map[string]int{},
		Ends: map[string]int{}, Targets: map[string]map[string]int{}, Hit: map[string]int{}, Exits: map[string]int{}, Recoveries: map[string][]float64{},
	}
}

// add counts an episode.
func (t *tally) add(e *episode) {
	t.Episodes[e.theme.name]++
	t.Drawn += e.drawn
	t.Claims += e.claims
	t.Refreshes += e.successes
	for _, l := range e.landings {
		count(t.Landed, l.kind, string(l.phase), 1)
		result := noClaim
		if l.execution != 0 {
			if result = e.results[l.execution]; result == "" {
				result = "claim taken back by a crash"
			}
		}
		count(t.Results, l.kind, result, 1)
		if target := e.targets[l.execution]; target != "" {
			t.Hit[target]++
		}
	}
	for id, result := range e.results {
		t.Ends[result]++
		count(t.Targets, e.targets[id], result, 1)
	}
	t.Reads += e.reads.Load()
	for exit, n := range e.exits {
		t.Exits[exit] += n
	}
	for _, d := range e.stops {
		t.Stops = append(t.Stops, d.Seconds())
	}
	t.Quiet = append(t.Quiet, e.quiet.Seconds())
	for kind, all := range e.recoveries {
		for _, d := range all {
			t.Recoveries[kind] = append(t.Recoveries[kind], d.Seconds())
		}
	}
	for _, v := range e.violations {
		t.Violations = append(t.Violations, fmt.Sprintf("seed %d, episode %d (%s): %s", e.seed, e.index, e.theme.name, v))
	}
}

func count(m map[string]map[string]int, a, b string, n int) {
	if m[a] == nil {
		m[a] = map[string]int{}
	}
	m[a][b] += n
}

// load makes a tally that goes on where the one in the file ends.
func load(file string, seed uint64) (*tally, error) {
	t := newTally(seed)
	text, err := os.ReadFile(file)
	if file == "" || errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(text, t)
	}
	t.Seeds = append(t.Seeds, seed)
	return t, err
}

// save writes it to the file, if there is to be one.
func (t *tally) save(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// faults is how many have landed.
func (t *tally) faults() (n int) {
	for _, phases := range t.Landed {
		n += sum(phases)
	}
	return n
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// markdown is the report.
func (t *tally) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s faults that hit (of %s drawn) in %d episodes on PostgreSQL %s, seeds %s; %s claims, %s refreshes; %d violations.\n",
		thousands(t.faults()), thousands(t.Drawn), sum(t.Episodes), t.Server, seedList(t.Seeds), thousands(t.Claims), thousands(t.Refreshes), len(t.Violations))
	for _, v := range t.Violations {
		fmt.Fprintf(&b, "\n- %s", v)
	}
	b.WriteString("\n### Faults, and how the executions ended that were hit\n\n")
	t.summary(&b)
	b.WriteString("\n<details><summary>Each fault by phase</summary>\n\n")
	table(&b, "fault", t.Landed)
	b.WriteString("\n</details>\n")
	if len(t.Recoveries) > 0 {
		b.WriteString("\n### Recovery, in seconds\n\n| fault | times | p50 | p99 | max |\n|---|---:|---:|---:|---:|\n")
		for _, kind := range slices.Sorted(maps.Keys(t.Recoveries)) {
			quantiles(&b, kind, t.Recoveries[kind])
		}
		quantiles(&b, "(the end of a storm, until every view was refreshed)", t.Quiet)
		quantiles(&b, "(a signal, until the process has ended)", t.Stops)
	}
	if len(t.Targets) > 1 {
		t.byTarget(&b)
	}
	if t.Soak != "" {
		b.WriteString("\n### Soak\n\n" + t.Soak)
	}
	b.WriteString("\n### All executions\n\n| end | times |\n|---|---:|\n")
	for _, end := range slices.Sorted(maps.Keys(t.Ends)) {
		fmt.Fprintf(&b, "| %s | %s |\n", end, thousands(t.Ends[end]))
	}
	return b.String()
}

func quantiles(b *strings.Builder, name string, seconds []float64) {
	if len(seconds) == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(seconds))
	at := func(q float64) float64 { return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))] }
	fmt.Fprintf(b, "| %s | %d | %.2f | %.2f | %.2f |\n", name, len(sorted), at(0.5), at(0.99), sorted[len(sorted)-1])
}

// inShort counts ends of executions.
func inShort(results map[string]int) (succeeded, abandoned, otherwise int) {
	for result, n := range results {
		switch {
		case strings.HasPrefix(result, "succeeded"):
			succeeded += n
		case strings.HasPrefix(result, "abandoned"):
			abandoned += n
		case result != noClaim:
			otherwise += n
		}
	}
	return succeeded, abandoned, otherwise
}

// byTarget writes a row for each kind of what was materialized.
func (t *tally) byTarget(b *strings.Builder) {
	fmt.Fprintf(b, "\n### Kinds, %s reads\n\n| kind | faults that hit an execution | succeeded | abandoned | ended otherwise |\n|---|---:|---:|---:|---:|\n", thousands(int(t.Reads)))
	for _, target := range slices.Sorted(maps.Keys(t.Targets)) {
		succeeded, abandoned, otherwise := inShort(t.Targets[target])
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", target, thousands(t.Hit[target]), thousands(succeeded), thousands(abandoned), thousands(otherwise))
	}
}

// summary writes a row for each fault, and one for each phase.
func (t *tally) summary(b *strings.Builder) {
	b.WriteString("| fault | hits | phases | succeeded | abandoned | ended otherwise | hit none |\n|---|---:|---:|---:|---:|---:|---:|\n")
	row := func(name string, hits int, phases string, results map[string]int) {
		succeeded, abandoned, otherwise := inShort(results)
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", name, thousands(hits), phases, thousands(succeeded), thousands(abandoned),
			thousands(otherwise), thousands(results[noClaim]))
	}
	all, byPhase := map[string]int{}, map[string]int{}
	for _, kind := range slices.Sorted(maps.Keys(t.Landed)) {
		row(kind, sum(t.Landed[kind]), fmt.Sprint(len(t.Landed[kind])), t.Results[kind])
		for result, n := range t.Results[kind] {
			all[result] += n
		}
		for at, n := range t.Landed[kind] {
			byPhase[at] += n
		}
	}
	row("**all**", t.faults(), fmt.Sprint(len(byPhase)), all)
	b.WriteString("\n| phase | hits |\n|---|---:|\n")
	for _, at := range inOrder(byPhase) {
		fmt.Fprintf(b, "| %s | %s |\n", at, thousands(byPhase[at]))
	}
}

// table writes counts with a row for each first key, and all its second ones in a cell.
func table(b *strings.Builder, head string, m map[string]map[string]int) {
	fmt.Fprintf(b, "| %s | all | of these |\n|---|---:|---|\n", head)
	for _, a := range slices.Sorted(maps.Keys(m)) {
		var parts []string
		for _, k := range inOrder(m[a]) {
			parts = append(parts, fmt.Sprintf("%s %s", k, thousands(m[a][k])))
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", a, thousands(sum(m[a])), strings.Join(parts, ", "))
	}
}

// inOrder returns phases as a refresh goes through them.
func inOrder(m map[string]int) []string {
	keys := slices.Sorted(maps.Keys(m))
	slices.SortStableFunc(keys, func(x, y string) int { return order(x) - order(y) })
	return keys
}

// order is a phase's place in a refresh.
func order(name string) int {
	name, _, _ = strings.Cut(name, ":")
	return slices.Index(phases, phase(name))
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func seedList(seeds []uint64) string {
	var parts []string
	for _, s := range seeds {
		parts = append(parts, fmt.Sprint(s))
	}
	return strings.Join(parts, ", ")
}
