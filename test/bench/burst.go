package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// concurrencies are how many views are refreshed at a time.
var concurrencies = [...]int{1, 4, 8}

// contender is a way to refresh all views, so many at a time.
type contender struct {
	name    string
	workers []int // 1, 4, 8 where it has a choice
	// burst refreshes every view once and returns how long that took, in its own terms. It leaves no connection open.
	burst func(b *bench, ctx context.Context, workers int) (time.Duration, error)
	// target is what the issue of the benchmark demanded of it, of the bare loop's throughput; 0: nothing.
	target map[int]float64
	last   bool // it goes behind the others in a round, since it waits for the full minute
}

// bareName is the one that all others are compared with.
const bareName = "bare loop (pgx)"

// processName is the one whose time is set beside everybody's.
const processName = "mvsched, the process `run -j`"

func contenders() []contender {
	return []contender{
		{name: bareName, workers: concurrencies[:], burst: (*bench).burstBare},
		{name: "bare, `pgbench`", workers: concurrencies[:], burst: (*bench).burstPgbench},
		{name: "mvsched, first claim to last record", workers: concurrencies[:], burst: (*bench).burstClaims, target: map[int]float64{1: 0.92, 4: 0.85, 8: 0.85}},
		{name: "mvsched, the call `RunDue`", workers: concurrencies[:], burst: (*bench).burstRunDue},
		{name: processName, workers: concurrencies[:], burst: (*bench).burstProcess, target: map[int]float64{8: 0.8}},
		{name: "mvsched, `serve -j`", workers: concurrencies[:], burst: (*bench).burstServe},
		{name: floorName, workers: concurrencies[:], burst: burstFloor(1)},
		{name: floorEightName, workers: []int{1}, burst: burstFloor(8)},
		{name: strippedName, workers: concurrencies[:], burst: (*bench).burstStripped},
		{name: "the article's SQL in a loop", workers: concurrencies[:], burst: (*bench).burstArticle},
		{name: "River", workers: []int{4, 8}, burst: (*bench).burstRiver},
		{name: "River, fetching every ms", workers: concurrencies[:], burst: (*bench).burstRiverTuned},
		{name: "pg_cron", workers: []int{8}, burst: (*bench).burstCron, last: true},
		{name: "cron, a `psql` for each view", workers: concurrencies[:], burst: (*bench).burstPsql},
	}
}

// results are by contender, in the order of rounds.
type results struct {
	seconds map[string][]float64
	cpu     map[string][]float64 // milliseconds of the server's for one refresh
}

// measureBurst lets all contenders refresh all views.
func (b *bench) measureBurst(ctx context.Context, out io.Writer) error {
	var able []contender
	for _, c := range contenders() {
		if why := b.lacks(c.name); why != "" {
			fmt.Fprintf(out, "Left out: %s, %s.\n\n", c.name, why)
			continue
		}
		able = append(able, c)
	}
	if err := b.prepareContenders(ctx); err != nil {
		return err
	}
	measured := map[int]*results{}
	for _, workers := range concurrencies {
		measured[workers] = &results{seconds: map[string][]float64{}, cpu: map[string][]float64{}}
	}
	// A first round fills caches and counts for nothing.
	order := rand.New(rand.NewPCG(1, 2))
	for round := range b.rounds + 1 {
		for _, workers := range concurrencies {
			turn := []contender{}
			for _, i := range order.Perm(len(able)) {
				if !able[i].last {
					turn = append(turn, able[i])
				}
			}
			for _, c := range able {
				if c.last && round > 0 {
					turn = append(turn, c)
				}
			}
			for _, c := range turn {
				if !slices.Contains(c.workers, workers) {
					continue
				}
				took, cpu, err := b.once(ctx, c, workers)
				if err != nil {
					return fmt.Errorf("%s, %d workers: %w", c.name, workers, err)
				}
				if round > 0 {
					r := measured[workers]
					r.seconds[c.name] = append(r.seconds[c.name], took.Seconds())
					r.cpu[c.name] = append(r.cpu[c.name], cpu.Seconds()*1000/float64(b.views))
				}
			}
		}
		fmt.Fprintf(os.Stderr, "burst: round %d of %d\n", round, b.rounds)
	}
	return b.printBurst(out, able, measured)
}

// once measures one burst, from tidy catalogs to the end of its last backend.
func (b *bench) once(ctx context.Context, c contender, workers int) (took, cpu time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := b.tidy(ctx); err != nil {
		return 0, 0, err
	}
	m, err := b.newMeter(ctx)
	if err != nil {
		return 0, 0, err
	}
	if took, err = c.burst(b, ctx, workers); err != nil {
		return 0, 0, err
	}
	cpu, err = m.read(ctx)
	return took, cpu, err
}

// printBurst writes the tables and draws the plots.
func (b *bench) printBurst(out io.Writer, able []contender, measured map[int]*results) error {
	for _, workers := range concurrencies {
		r := measured[workers]
		rows := [][]string{{"", "refreshes/s", "of bare", "target", "`run -j` takes, of its time", "server CPU, ms a refresh", "of bare"}}
		throughput := []bar{}
		cost := []bar{}
		for _, c := range able {
			if !slices.Contains(c.workers, workers) {
				continue
			}
			perSecond := []float64{}
			for _, s := range r.seconds[c.name] {
				perSecond = append(perSecond, float64(b.views)/s)
			}
			share := ratios(r.seconds[bareName], r.seconds[c.name])
			target := "–"
			if want, ok := c.target[workers]; ok {
				target = fmt.Sprintf("≥ %.2f", want)
				if median(share) < want {
					target += ", missed"
				}
			}
			cpu := sum(r.cpu[c.name]) / float64(len(r.cpu[c.name]))
			bareCPU := sum(r.cpu[bareName]) / float64(len(r.cpu[bareName]))
			rows = append(rows, []string{
				c.name, fmt.Sprintf("%.0f", median(perSecond)), spread("%.2f", share), target,
				fmt.Sprintf("%.2f", median(ratios(r.seconds[processName], r.seconds[c.name]))),
				fmt.Sprintf("%.2f", cpu), fmt.Sprintf("%.2f", cpu/bareCPU),
			})
			throughput = append(throughput, bar{c.name, median(share)})
			cost = append(cost, bar{c.name, cpu / bareCPU})
		}
		table(out, fmt.Sprintf("%d views at once, %d at a time", b.views, workers), rows)
		title := fmt.Sprintf("%d views due at once, %d at a time: ", b.views, workers)
		err := cmp.Or(
			b.plot(fmt.Sprintf("burst-%d.svg", workers), title+"throughput, bare loop = 1 (more is better)", throughput),
			b.plot(fmt.Sprintf("burst-cpu-%d.svg", workers), title+"the server's CPU time a refresh, bare loop = 1 (less is better)", cost),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}
