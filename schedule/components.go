package schedule

import "slices"

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
