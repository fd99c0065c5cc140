package model

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "3 workers and 2 views; some minutes and some gigabytes")

// limit keeps a search that has got out of hand from taking all memory.
const limit = 60_000_000

func bounded(workers, views, claims, slots int, faults, byHand uint8) Model {
	return Model{Workers: workers, Views: views, Claims: claims, Slots: slots, Faults: faults, ByHand: byHand}
}

// TestOurs: mvsched keeps I1 to I5, I10 and L1 in every state within the bounds.
func TestOurs(t *testing.T) {
	bounds := []Model{bounded(2, 1, 3, 2, 1, 0), bounded(2, 1, 2, 1, 2, 0), bounded(2, 2, 2, 1, 1, 0), bounded(3, 1, 2, 1, 1, 1)}
	if *full {
		bounds = []Model{bounded(3, 2, 3, 2, 1, 1), bounded(3, 2, 3, 1, 2, 0), bounded(2, 1, 3, 2, 3, 0)}
	}
	for _, model := range bounds {
		for _, where := range []string{"crash", "failover_and_pooler"} {
			model.Failover = where != "crash"
			model.Pooler = where != "crash"
			name := fmt.Sprintf("%d_workers,%d_views,%d_claims,%d_slots,%d_faults,%d_by_hand/%s",
				model.Workers, model.Views, model.Claims, model.Slots, model.Faults, model.ByHand, where)
			t.Run(name, func(t *testing.T) {
				began := time.Now()
				result := Search[state](&model, limit)
				t.Logf("%d states, %d steps deep, %v", result.States, result.Depth, time.Since(began).Round(time.Millisecond))
				if result.Violation != "" {
					t.Fatalf("breaks %s:\n%s", result.Violation, strings.Join(result.Trace, "\n"))
				}
				if !result.Complete {
					t.Fatal("has not seen every state")
				}
			})
		}
	}
}

// TestMutants: the model tells mvsched from what it could have been.
func TestMutants(t *testing.T) {
	for _, mutant := range mutants {
		t.Run(strings.ReplaceAll(mutant.name, " ", "_"), func(t *testing.T) {
			model := bounded(2, 1, 3, 2, 1, 0)
			model.ByHand = mutant.byHand
			model.Pooler, model.Design = mutant.pooler, mutant.design
			result := Search[state](&model, limit)
			if result.Violation != mutant.breaks {
				t.Fatalf("breaks %q, want %q:\n%s", result.Violation, mutant.breaks, strings.Join(result.Trace, "\n"))
			}
			inDocs(t, "| "+mutant.name+" | "+mutant.breaks+" |")
			t.Log("\n" + strings.Join(result.Trace, "\n"))
		})
	}
}

// TestDoubled: what can go without anything breaking, because something else holds. Should one of these break something one
// day, it belongs to the mutants; and it must not go together with its double.
func TestDoubled(t *testing.T) {
	for _, mutant := range doubled {
		t.Run(strings.ReplaceAll(mutant.name, " ", "_"), func(t *testing.T) {
			model := bounded(2, 1, 3, 2, 1, 0)
			model.Design = mutant.design
			if result := Search[state](&model, limit); result.Violation != "" || !result.Complete {
				t.Fatalf("breaks %q:\n%s", result.Violation, strings.Join(result.Trace, "\n"))
			}
			inDocs(t, "| "+mutant.name+" |")
		})
	}
}

// TestArticle: the design that the tables come from breaks four invariants. The traces stand in docs/correctness.md.
func TestArticle(t *testing.T) {
	for _, invariant := range []string{"I1", "I2", "I3", Liveness} {
		t.Run(invariant, func(t *testing.T) {
			article := &Article{Workers: 2, Views: 1, Claims: 3, Ticks: 3, Faults: 1, Asserts: invariant}
			result := Search[articleState](article, limit)
			if result.Violation != invariant {
				t.Fatalf("breaks %q, want %s", result.Violation, invariant)
			}
			inDocs(t, "```\n"+strings.Join(result.Trace, "\n")+"\n```")
		})
	}
}

// TestFound: what the model has found in mvsched itself. The traces stand in docs/correctness.md.
func TestFound(t *testing.T) {
	for _, wrong := range []design{{FenceByID: true}, {OutcomeByID: true}} {
		model := bounded(2, 1, 2, 1, 1, 0)
		model.Pooler, model.Design = wrong.FenceByID, wrong
		result := Search[state](&model, limit)
		inDocs(t, "```\n"+strings.Join(result.Trace, "\n")+"\n```")
	}
}

// inDocs fails when docs/correctness.md does not have the text.
func inDocs(t *testing.T, text string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "correctness.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), text) {
		t.Errorf("docs/correctness.md has not:\n%s", text)
	}
}

// counted is a model that counts what happens in it.
type counted struct {
	Model
	happened map[string]int
}

func (c *counted) Next(s state, yield func(Step, state)) {
	c.Model.Next(s, func(step Step, next state) {
		c.happened[step.Says]++
		yield(step, next)
	})
}

// TestEveryActionHappens: a fault that never comes would be survived by anything.
func TestEveryActionHappens(t *testing.T) {
	seen := &counted{Model: bounded(2, 1, 2, 2, 1, 1), happened: map[string]int{}}
	Search[state](seen, limit)
	ofMutants := []string{"%w inserts the execution", "%w records the success", "%w selects %v's run as dead, or ends what it has selected"}
	for _, a := range actions {
		if happens := seen.happened[a.says] > 0; happens == slices.Contains(ofMutants, a.says) {
			t.Errorf("%s: %d times", a.says, seen.happened[a.says])
		}
	}
}
