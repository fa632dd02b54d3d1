package handover

import "slices"

// Move is one of the table's.
type Move struct{ From, To Phase }

// Moves gives the table's moves, by phase, each once.
func Moves() []Move {
	var out []Move
	for from, row := range transitions {
		for _, to := range row {
			if m := (Move{from, to}); !slices.Contains(out, m) {
				out = append(out, m)
			}
		}
	}
	return out
}

// Events gives what the table names for a phase.
func Events(p Phase) []string {
	var out []string
	for e := range transitions[p] {
		out = append(out, string(e))
	}
	slices.Sort(out)
	return out
}
