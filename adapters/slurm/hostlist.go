package slurm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// hostlist writes names as Slurm's host lists do: "n1,n3" as they are, "n[001-120]" for
// rows, so that a thousand names fit into an argument.
func hostlist(names []string) string {
	type key struct {
		prefix string
		width  int
	}
	rows := map[key][]int{}
	var order []key
	var single []string
	for _, name := range names {
		i := len(name)
		for i > 0 && name[i-1] >= '0' && name[i-1] <= '9' {
			i--
		}
		n, err := strconv.Atoi(name[i:])
		if err != nil || len(name)-i > 9 {
			single = append(single, name)
			continue
		}
		k := key{name[:i], len(name) - i}
		if rows[k] == nil {
			order = append(order, k)
		}
		rows[k] = append(rows[k], n)
	}
	var out []string
	for _, k := range order {
		numbers := rows[k]
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		if len(numbers) == 1 {
			out = append(out, fmt.Sprintf("%s%0*d", k.prefix, k.width, numbers[0]))
			continue
		}
		var spans []string
		for i := 0; i < len(numbers); {
			j := i
			for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
				j++
			}
			span := fmt.Sprintf("%0*d", k.width, numbers[i])
			if j > i {
				span += fmt.Sprintf("-%0*d", k.width, numbers[j])
			}
			spans, i = append(spans, span), j+1
		}
		out = append(out, k.prefix+"["+strings.Join(spans, ",")+"]")
	}
	return strings.Join(append(out, single...), ",")
}

// maxHosts bounds the names that one host list is read into.
const maxHosts = 4096

// expand reads a host list with at most one bracket in a name.
func expand(list string) []string {
	var out []string
	for item := range splitHosts(list) {
		prefix, rest, ok := strings.Cut(item, "[")
		if !ok {
			out = append(out, item)
			continue
		}
		inner, suffix, ok := strings.Cut(rest, "]")
		if !ok {
			continue
		}
		for span := range strings.SplitSeq(inner, ",") {
			from, to, isRange := strings.Cut(span, "-")
			if !isRange {
				to = from
			}
			a, err1 := strconv.Atoi(from)
			b, err2 := strconv.Atoi(to)
			if err1 != nil || err2 != nil || a > b || b-a > maxHosts {
				continue
			}
			for n := a; n <= b && len(out) < maxHosts; n++ {
				out = append(out, fmt.Sprintf("%s%0*d%s", prefix, len(from), n, suffix))
			}
		}
	}
	return out[:min(len(out), maxHosts)]
}

// splitHosts cuts at the commas outside of brackets.
func splitHosts(list string) func(func(string) bool) {
	return func(yield func(string) bool) {
		depth, start := 0, 0
		for i := range len(list) {
			switch list[i] {
			case '[':
				depth++
			case ']':
				depth--
			case ',':
				if depth == 0 {
					if i > start && !yield(list[start:i]) {
						return
					}
					start = i + 1
				}
			}
		}
		if start < len(list) {
			yield(list[start:])
		}
	}
}
