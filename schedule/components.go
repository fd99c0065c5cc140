package schedule

import (
	"cmp"
	"maps"
	"slices"
)

// inOrder groups keys so that each comes after those that it reads, its parents, and says for each whom it waits for.
// What is in a cycle comes together. The keys are given in the order of their creation, which is the order within a
// cycle, and of the ancestors.
func inOrder[K comparable](keys []K, parents func(K) []K) (groups [][]K, ancestors map[K][]K) {
	created := map[K]int{}
	for i, k := range keys {
		created[k] = i
	}
	groups, ancestors = components(keys, parents), map[K][]K{}
	home := map[K][]K{}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b K) int { return cmp.Compare(created[a], created[b]) })
		above := map[int]bool{}
		for _, k := range group {
			home[k] = group
			for _, parent := range parents(k) {
				if slices.Contains(group, parent) {
					continue
				}
				// All of a cycle, or one that reads it could begin in the middle.
				for _, other := range slices.Concat(home[parent], ancestors[parent]) {
					above[created[other]] = true
				}
			}
		}
		var others []K
		for _, i := range slices.Sorted(maps.Keys(above)) {
			others = append(others, keys[i])
		}
		for i, k := range group {
			ancestors[k] = slices.Concat(others, group[:i])
		}
	}
	return groups, ancestors
}

// components returns the strongly connected components of a graph, each after those that it leads to (Tarjan, Depth-first
// search and linear graph algorithms, 1972).
func components[K comparable](keys []K, next func(K) []K) [][]K {
	index, low := map[K]int{}, map[K]int{}
	onStack := map[K]bool{}
	var stack []K
	var groups [][]K
	var visit func(K)
	visit = func(k K) {
		index[k], low[k] = len(index)+1, len(index)+1
		stack = append(stack, k)
		onStack[k] = true
		for _, n := range next(k) {
			if index[n] == 0 {
				visit(n)
				low[k] = min(low[k], low[n])
			} else if onStack[n] {
				low[k] = min(low[k], index[n])
			}
		}
		if low[k] != index[k] {
			return
		}
		at := slices.Index(stack, k)
		group := slices.Clone(stack[at:])
		stack = stack[:at]
		for _, member := range group {
			onStack[member] = false
		}
		groups = append(groups, group)
	}
	for _, k := range keys {
		if index[k] == 0 {
			visit(k)
		}
	}
	return groups
}
