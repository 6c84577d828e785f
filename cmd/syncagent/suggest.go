package main

import "slices"

// nearest gives the candidate that was most likely meant by word, or "" when none is close: at most two letters (one
// for short words) wrong, missing, too many or swapped, or word is the beginning of just that one.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", 3
	if len(word) < 4 {
		bestDistance = 2
	}
	var begins []string
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
		if len(word) > 1 && len(c) > len(word) && c[:len(word)] == word {
			begins = append(begins, c)
		}
	}
	if best == "" && len(begins) == 1 {
		return begins[0]
	}
	return best
}

// distance counts insertions, deletions, substitutions and swaps of neighbours between two words (optimal string
// alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := []int{rows[i-1][j] + 1, rows[i][j-1] + 1, rows[i-1][j-1] + cost}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = append(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = slices.Min(d)
		}
	}
	return rows[len(a)][len(b)]
}
