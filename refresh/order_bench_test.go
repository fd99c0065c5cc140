package refresh_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/refresh"
	"github.com/mvsched/mvsched/schedule"
)

// How long a round takes beside a simulated one of as many workers that cost nothing: a list schedule that begins the view
// with the longest path behind it first. "took/simulated" takes the durations that the first round recorded, "took/ideal"
// those of the queries alone.
func BenchmarkMakespan(b *testing.B) {
	const longest = time.Second // so that the machine's own speed weighs little
	for seed := range uint64(10) {
		for _, jobs := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("seed=%d/jobs=%d", seed, jobs), func(b *testing.B) {
				r := rand.New(rand.NewPCG(seed, 0))
				l := pgtest.NewLattice(b, r, 40, longest)
				hour := time.Hour
				if _, err := schedule.NewStore(l.Pool).AddAll(b.Context(), nil, schedule.Settings{Every: &hour}); err != nil {
					b.Fatal(err)
				}
				config := l.Pool.Config()
				refresh.ConfigurePool(config, jobs)
				w := &bundle{DB: &l.DB}
				w.connect(config, jobs)
				first := w.runDue()

				var took, known time.Duration
				for b.Loop() {
					after := l.NextRound(int64(b.N) + 2)
					l.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
					began := time.Now()
					w.runDue()
					took += time.Since(began)
					durations := make([]time.Duration, len(l.Names))
					for i, name := range l.Names {
						durations[i] = first[name].EndedAt.Sub(first[name].StartedAt)
					}
					known += listSchedule(l.Parents, durations, jobs)
					l.CheckRound(l.Parents, after, int64(b.N)+2, nil)
				}
				b.ReportMetric(took.Seconds()/float64(b.N)/listSchedule(l.Parents, l.Sleep, jobs).Seconds(), "took/ideal")
				b.ReportMetric(took.Seconds()/known.Seconds(), "took/simulated")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// listSchedule is how long the views take when every free worker begins, of those whose parents have ended, the one with
// the longest path.
func listSchedule(parents [][]int, duration []time.Duration, workers int) (now time.Duration) {
	path := slices.Clone(duration)
	for i := len(parents) - 1; i >= 0; i-- {
		for _, p := range parents[i] {
			path[p] = max(path[p], duration[p]+path[i])
		}
	}
	ends := map[int]time.Duration{} // of what was begun
	running := func(i int) bool { return ends[i] > now }
	for {
		busy := 0
		var ready []int
		for i := range parents {
			switch _, begun := ends[i]; {
			case begun && running(i):
				busy++
			case !begun && !slices.ContainsFunc(parents[i], func(p int) bool {
				end, begun := ends[p]
				return !begun || end > now
			}):
				ready = append(ready, i)
			}
		}
		slices.SortFunc(ready, func(a, b int) int { return int(path[b] - path[a]) })
		for _, i := range ready[:min(len(ready), workers-busy)] {
			ends[i] = now + duration[i]
			busy++
		}
		next := time.Duration(-1)
		for _, end := range ends {
			if end > now && (next < 0 || end < next) {
				next = end
			}
		}
		if next < 0 {
			if len(ends) == len(parents) {
				return now
			}
			continue // some took no time at all
		}
		now = next
	}
}
