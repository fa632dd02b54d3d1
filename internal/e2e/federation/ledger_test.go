package federation

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ran is what the jobs themselves wrote of one of them.
type ran struct {
	starts []time.Time
	ends   []time.Time
	places []string // domains, of each start
	users  []string // the local accounts, of each start
}

// elsewhere reports whether the job ran elsewhere than at a place.
func (r *ran) elsewhere(than string) bool {
	return r != nil && slices.ContainsFunc(r.places, func(p string) bool { return p != than })
}

// readLedger reads what jobs wrote; where has the domain of each namespace.
func readLedger(path string, where map[string]string) (map[string]*ran, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]*ran{}
	of := func(id string) *ran {
		r := out[id]
		if r == nil {
			r = new(ran)
			out[id] = r
		}
		return r
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 5 && f[0] == "S":
			at, err := seconds(f[3])
			if err != nil {
				return nil, err
			}
			place := where[f[2]]
			if place == "" {
				return nil, fmt.Errorf("%s ran in the namespace %s, which is nobody's", f[1], f[2])
			}
			r := of(f[1])
			r.starts, r.places, r.users = append(r.starts, at), append(r.places, place), append(r.users, f[4])
		case len(f) == 3 && f[0] == "E":
			at, err := seconds(f[2])
			if err != nil {
				return nil, err
			}
			r := of(f[1])
			r.ends = append(r.ends, at)
		default:
			return nil, fmt.Errorf("the ledger has the line %q", line)
		}
	}
	return out, nil
}

func seconds(s string) (time.Time, error) {
	whole, part, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nsec, err := strconv.ParseInt((part + "000000000")[:9], 10, 64)
	return time.Unix(sec, nsec), err
}

// correct is what the ledger says of a run.
type correct struct {
	lost     []string // did not run to their end, or were never told to have ended
	twice    []string // ran to their end twice, or in two places at once
	again    []string // were begun again after their first run was ended: allowed under faults
	strange  []string // ran, and nobody submitted them
	strayed  []string // ran in a domain where their VO is not served
	astray   []string // ran as another account than the one of the rules
	finished int
}

// judge holds the ledger against the jobs; told has those that their origin told to have
// finished.
func judge(jobs []work, wrote map[string]*ran, told map[string]bool) correct {
	var c correct
	known := map[string]bool{}
	for _, j := range jobs {
		known[j.id] = true
		r := wrote[j.id]
		if r == nil {
			r = new(ran)
		}
		switch {
		case len(r.ends) == 0 || !told[j.id]:
			c.lost = append(c.lost, j.id)
		default:
			c.finished++
		}
		if len(r.ends) > 1 || len(r.starts) > 1 && len(r.ends) > 0 && r.starts[len(r.starts)-1].After(r.ends[0]) {
			c.twice = append(c.twice, j.id)
		} else if len(r.starts) > 1 {
			c.again = append(c.again, j.id)
		}
		if j.vo == house && r.elsewhere(j.origin) {
			c.strayed = append(c.strayed, j.id)
		}
		for i, place := range r.places {
			if r.users[i] != accountOf(place, j.origin) {
				c.astray = append(c.astray, j.id+", at "+place+" as "+r.users[i])
				break
			}
		}
	}
	for id := range wrote {
		if !known[id] {
			c.strange = append(c.strange, id)
		}
	}
	return c
}

// TestJudge shows that each kind of wrong is found.
func TestJudge(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/ledger"
	text := "S a net:[1] 10.5 nobody\nE a 11.5\nS b net:[1] 10.0 nobody\nS c net:[2] 1.0 games\nE c 2.0\nS c net:[1] 3.0 nobody\nE c 4.0\nS d net:[1] 1.0 nobody\nS d net:[2] 9.0 nobody\nE d 10.25\nS x net:[1] 1.0 nobody\nE x 2.0\nS f net:[1] 1.0 nobody\nE f 2.0\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wrote, err := readLedger(path, map[string]string{"net:[1]": "fiu", "net:[2]": "bsc"})
	if err != nil {
		t.Fatal(err)
	}
	var jobs []work
	told := map[string]bool{}
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		jobs = append(jobs, work{id: id, origin: "fiu", vo: map[string]string{"c": house}[id]})
		told[id] = id != "f"
	}
	got := judge(jobs, wrote, told)
	if s := fmt.Sprint(got.lost, got.twice, got.again, got.strange, got.strayed, got.astray, got.finished); s != "[b e f] [c] [d] [x] [c] [d, at bsc as nobody] 3" {
		t.Error(s)
	}
	if d := wrote["d"].ends[0].Sub(wrote["d"].starts[1]); d != 1250*time.Millisecond || wrote["d"].places[1] != "bsc" {
		t.Error(d, wrote["d"].places)
	}
	if _, err := readLedger(path, map[string]string{"net:[1]": "fiu"}); err == nil {
		t.Error("a job ran where nobody is, and nobody minded")
	}
}
