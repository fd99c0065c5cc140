package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The list does not rot: what each mutant changes is there, once.
func TestEveryMutantHasItsPlace(t *testing.T) {
	for _, m := range mutants {
		for _, e := range m.edits {
			text, err := os.ReadFile(filepath.Join("..", "..", "..", e.file))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), e.from); n != 1 {
				t.Errorf("%s: %s has it %d times: %s", m.name, e.file, n, e.from)
			}
			if e.from == e.to {
				t.Errorf("%s changes nothing", m.name)
			}
		}
	}
}

// Three of what `make mutants` tries: two workers at one claim, a live run taken for dead, a success without its refresh.
func TestSampledMutantsAreKilled(t *testing.T) {
	killed, all, err := try(t.Context(), filepath.Join("..", "..", ".."), func(m mutant) bool { return m.sampled })
	if err != nil {
		t.Fatal(err)
	}
	if all != 3 || killed != all {
		t.Errorf("%d of %d mutants killed", killed, all)
	}
}
