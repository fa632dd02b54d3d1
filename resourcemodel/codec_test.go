package resourcemodel

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

func TestRecordsComeBack(t *testing.T) {
	g := newModelGen(11)
	for range 500 {
		s := g.static()
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeStatic(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if !reflect.DeepEqual(back, s.Canonical()) || !back.Same(s.Canonical()) {
			t.Fatalf("%s", b)
		}
		// The same value in another order, in another zone, with empty lists.
		o := *s
		o.Changed = s.Changed.In(time.FixedZone("x", 3600))
		o.Shares, o.Environments, o.Applications = reversed(s.Shares), reversed(s.Environments), reversed(s.Applications)
		o.Labels = append(reversed(s.Labels), s.Labels...)
		for i := range o.Environments {
			o.Environments[i].Features = append([]string{}, reversed(o.Environments[i].Features)...)
			if o.Environments[i].GPUs == nil {
				o.Environments[i].GPUs = map[string]int{}
			}
		}
		if again, err := o.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%v\n%s\n%s", err, b, again)
		}
		d := g.dynamic(s)
		b, err = d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		dyn, err := DecodeDynamic(b)
		if err != nil || !reflect.DeepEqual(dyn, d.Canonical()) {
			t.Fatalf("%v\n%s", err, b)
		}
	}
}

func reversed[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func TestDecodeIsStrict(t *testing.T) {
	good := `{"version":1,"changed":"2026-03-01T14:00:00Z","source":"x","type":"slurm","shares":[{"id":"a","environments":["e"]}],"environments":[{"id":"e","cpus":4}]}`
	if _, err := DecodeStatic([]byte(good)); err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"nothing":          ``,
		"not JSON":         `{`,
		"another thing":    `[]`,
		"null":             `null`,
		"an unknown":       strings.Replace(good, `"type"`, `"colour":1,"type"`, 1),
		"twice":            strings.Replace(good, `"type"`, `"type":"x","type"`, 1),
		"spelled":          strings.Replace(good, `"type"`, `"Type"`, 1),
		"white space":      good + "\n",
		"more behind":      good + good,
		"another order":    strings.Replace(good, `"version":1,"changed":"2026-03-01T14:00:00Z"`, `"changed":"2026-03-01T14:00:00Z","version":1`, 1),
		"another number":   strings.Replace(good, `"cpus":4`, `"cpus":4e0`, 1),
		"a fraction":       strings.Replace(good, `"cpus":4`, `"cpus":4.5`, 1),
		"negative":         strings.Replace(good, `"cpus":4`, `"cpus":-4`, 1),
		"a text":           strings.Replace(good, `"cpus":4`, `"cpus":"4"`, 1),
		"zone":             strings.Replace(good, `00Z`, `00+01:00`, 1),
		"not there":        strings.Replace(good, `["e"]`, `["f"]`, 1),
		"two environments": strings.Replace(good, `{"id":"e","cpus":4}`, `{"id":"e","cpus":4},{"id":"e"}`, 1),
		"huge":             strings.Replace(good, `"cpus":4`, `"cpus":1125899906842625`, 1),
		"many objects":     `{"shares":[` + strings.Repeat("{},", maxObjects) + `{}]}`,
		"many bytes":       `{"type":"` + strings.Repeat("x", MaxRecord) + `"}`,
	}
	for name, doc := range bad {
		if _, err := DecodeStatic([]byte(doc)); !fail.Is(err, fail.Invalid) || fail.Sentence(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, doc := range []string{``, `{"up":true}`, `{"version":1,"changed":"2026-03-01T14:00:00Z","source":"x","up":1}`} {
		if _, err := DecodeDynamic([]byte(doc)); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestBounds(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	many := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = strings.Repeat("x", 1+i%200)
		}
		return list
	}
	env := func(change func(*Environment)) func(*Static) {
		return func(s *Static) { change(&s.Environments[0]) }
	}
	share := func(change func(*Share)) func(*Static) { return func(s *Static) { change(&s.Shares[0]) } }
	for name, change := range map[string]func(*Static){
		"type":             func(s *Static) { s.Type = long },
		"source":           func(s *Static) { s.Source = "a\nb" },
		"detail":           func(s *Static) { s.Detail = 9 },
		"year":             func(s *Static) { s.Changed = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"labels":           func(s *Static) { s.Labels = many(MaxLabels + 1) },
		"label":            func(s *Static) { s.Labels = []string{""} },
		"UTF-8":            func(s *Static) { s.Labels = []string{"\xff"} },
		"shares":           func(s *Static) { s.Shares = make([]Share, MaxShares+1) },
		"environments":     func(s *Static) { s.Environments = make([]Environment, MaxEnvironments+1) },
		"applications":     func(s *Static) { s.Applications = make([]Application, MaxApplications+1) },
		"application":      func(s *Static) { s.Applications = []Application{{}} },
		"app environment":  func(s *Static) { s.Applications = []Application{{Name: "a", Environments: []string{"?"}}} },
		"data":             func(s *Static) { s.Data = make([]Data, MaxData+1) },
		"prefix":           func(s *Static) { s.Data = []Data{{}} },
		"distance":         func(s *Static) { s.Data = []Data{{Prefix: "/", Distance: math.NaN()}} },
		"rule":             func(s *Static) { s.Policy.Allow = []string{"group:x"} },
		"rules":            func(s *Static) { s.Policy.Deny = many(MaxRules + 1) },
		"empty vo":         func(s *Static) { s.Policy.Allow = []string{"vo:"} },
		"consumable":       func(s *Static) { s.Consumables = []Consumable{{Name: "a", Total: -1}} },
		"consumable twice": func(s *Static) { s.Consumables = []Consumable{{Name: "a"}, {Name: "a"}} },
		"share ID":         share(func(h *Share) { h.ID = "" }),
		"wall time":        share(func(h *Share) { h.MaxWallTime = -1 }),
		"CPUs of a share":  share(func(h *Share) { h.MaxCPUs = -1 }),
		"slots":            share(func(h *Share) { h.Slots = MaxCount + 1 }),
		"price":            share(func(h *Share) { h.Price = math.Inf(1) }),
		"same env":         share(func(h *Share) { h.Environments = []string{"e", "e"} }),
		"span":             share(func(h *Share) { h.Span = &ShareSpan{MaxNodes: -1} }),
		"memory":           env(func(e *Environment) { e.Memory = -1 }),
		"disk":             env(func(e *Environment) { e.Disk = MaxBytes + 1 }),
		"speed":            env(func(e *Environment) { e.CPUSpeed = math.NaN() }),
		"minus zero":       env(func(e *Environment) { e.Bandwidth = math.Copysign(0, -1) }),
		"host names":       env(func(e *Environment) { e.HostNames = many(MaxHostNames + 1) }),
		"features":         env(func(e *Environment) { e.Features = many(MaxFeatures + 1) }),
		"file systems":     env(func(e *Environment) { e.FileSystems = make([]FileSystem, MaxFileSystems+1) }),
		"size":             env(func(e *Environment) { e.FileSystems = []FileSystem{{Name: "a", Size: -1}} }),
		"gpus":             env(func(e *Environment) { e.GPUs = map[string]int{"a": -1} }),
		"benchmark":        env(func(e *Environment) { e.Benchmarks = map[string]float64{"a": math.Inf(1)} }),
		"span of env":      env(func(e *Environment) { e.Span = &Span{CPUs: -1} }),
		"classes":          env(func(e *Environment) { e.Classes = -1 }),
		"OS":               env(func(e *Environment) { e.OperatingSystem = long }),
		"places":           nil,
	} {
		s := &Static{Shares: []Share{{ID: "a", Environments: []string{"e"}}}, Environments: []Environment{{ID: "e"}}}
		if change != nil {
			change(s)
		} else {
			s.Environments = nil
			for i := range 1000 {
				s.Environments = append(s.Environments, Environment{ID: strings.Repeat("x", 1+i%200) + string(rune('a'+i/200))})
			}
			for i := range 20 {
				h := Share{ID: string(rune('a' + i))}
				for _, e := range s.Environments {
					h.Environments = append(h.Environments, e.ID)
				}
				s.Shares = append(s.Shares, h)
			}
			s.Shares = s.Shares[1:]
		}
		err := s.Check()
		if !fail.Is(err, fail.Invalid) || fail.Sentence(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s is encoded", name)
		}
	}
	for name, d := range map[string]*Dynamic{
		"problem":  {Problem: strings.Repeat("x", MaxText+1)},
		"free":     {Consumables: map[string]int64{"a": -1}},
		"running":  {Shares: map[string]ShareState{"a": {Running: -1}}},
		"forecast": {Shares: map[string]ShareState{"a": {Forecast: -1}}},
		"ID":       {Shares: map[string]ShareState{"": {}}},
		"nodes":    {Environments: map[string]EnvironmentState{"a": {Nodes: 1, Available: 2}}},
		"memory":   {Environments: map[string]EnvironmentState{"a": {FreeMemory: -1}}},
		"best":     {Environments: map[string]EnvironmentState{"a": {Best: &EnvironmentState{Best: &EnvironmentState{}}}}},
	} {
		if err := d.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := &Static{Environments: []Environment{{ID: "e"}}}
	for i := range MaxHostNames {
		big.Environments[0].HostNames = append(big.Environments[0].HostNames, strings.Repeat("h", MaxName-4)+string(rune('a'+i/676))+string(rune('a'+i/26%26))+string(rune('a'+i%26)))
	}
	big.Environments = append(big.Environments, big.Environments[0])
	big.Environments[1].ID = "f"
	if _, err := big.Encode(); !fail.Is(err, fail.Exhausted) {
		t.Errorf("2 MiB: %v", err)
	}
}

// TestEveryFieldCounts changes each field of the parts in turn: Same must see it, and
// the record must differ. Only the version and the time are no part of the value.
func TestEveryFieldCounts(t *testing.T) {
	full := func() (*Static, *Dynamic) {
		s := &Static{
			Stamp: Stamp{Version: 1, Changed: modelStart, Source: "x"}, Labels: []string{"l"},
			Shares: []Share{{
				ID: "s", Environments: []string{"e"}, Policy: Policy{Allow: []string{"vo:a"}, Deny: []string{"vo:b"}},
				Consumables: []Consumable{{Name: "c"}}, Span: &ShareSpan{IDs: []string{"s"}},
			}},
			Environments: []Environment{{
				ID: "e", GPUs: map[string]int{"": 1}, Features: []string{"f"}, HostNames: []string{"h"}, FileSystems: []FileSystem{{Name: "F"}},
				Benchmarks: map[string]float64{"b": 1}, Consumables: []Consumable{{Name: "c"}},
				Span: &Span{OperatingSystems: []string{"o"}, OSVersions: []string{"v"}, CPUArchitectures: []string{"a"}, GPUs: map[string]int{"": 1}, Features: []string{"f"}, FileSystems: []FileSystem{{Name: "F"}}, Benchmarks: map[string]float64{"b": 1}, Consumables: []Consumable{{Name: "c"}}},
			}},
			Applications: []Application{{Name: "a", Environments: []string{"e"}}}, Policy: Policy{Allow: []string{"vo:a"}, Deny: []string{"vo:b"}},
			Consumables: []Consumable{{Name: "c"}}, Data: []Data{{Prefix: "/"}},
		}
		d := &Dynamic{
			Stamp: s.Stamp, Shares: map[string]ShareState{"s": {Consumables: map[string]int64{"c": 1}}},
			Environments: map[string]EnvironmentState{"e": {Best: &EnvironmentState{}}}, Consumables: map[string]int64{"c": 1},
		}
		return s, d
	}
	n := 0
	for which := range 2 {
		for i := 0; ; i++ {
			s, d := full()
			s0, d0 := full()
			left := i
			path := mutate(reflect.ValueOf([]any{s, d}[which]).Elem(), &left)
			if path == "" {
				break
			}
			n++
			stamp := path == ".Stamp.Version" || path == ".Stamp.Changed"
			if same := s.Same(s0) && d.Same(d0); same != stamp {
				t.Errorf("%s: Same says %v", path, same)
			}
			a, _ := json.Marshal([]any{s.Canonical(), d.Canonical()})
			b, _ := json.Marshal([]any{s0.Canonical(), d0.Canonical()})
			if bytes.Equal(a, b) {
				t.Errorf("%s is not in the record", path)
			}
		}
	}
	if n < 95 {
		t.Errorf("only %d fields were tried", n)
	}
}

// mutate changes the field that comes after left others and gives its path; "" where
// there are no more.
func mutate(v reflect.Value, left *int) string {
	if v.Type() == reflect.TypeFor[time.Time]() {
		if *left--; *left < 0 {
			v.Set(reflect.ValueOf(modelStart.Add(time.Hour)))
			return " "
		}
		return ""
	}
	switch v.Kind() { //nolint:exhaustive // of the others there are none
	case reflect.Struct:
		for i := range v.NumField() {
			if p := mutate(v.Field(i), left); p != "" {
				return "." + v.Type().Field(i).Name + strings.TrimSpace(p)
			}
		}
		return ""
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return mutate(v.Elem(), left)
	case reflect.Slice:
		for i := range v.Len() {
			if p := mutate(v.Index(i), left); p != "" {
				return "[]" + p
			}
		}
		return ""
	case reflect.Map:
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			if p := mutate(e, left); p != "" {
				v.SetMapIndex(k, e)
				return "{}" + p
			}
		}
		return ""
	}
	if *left--; *left >= 0 {
		return ""
	}
	switch v.Kind() { //nolint:exhaustive // of the others there are none
	case reflect.String:
		v.SetString(v.String() + "z")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		v.SetInt(v.Int() + 1)
	}
	return " "
}

func TestStamped(t *testing.T) {
	g := newModelGen(5)
	s := g.static()
	first := s.Stamped(nil, modelStart)
	if first.Version != 1 || !first.Changed.Equal(modelStart) {
		t.Errorf("%+v", first.Stamp)
	}
	if again := s.Stamped(first, modelStart.Add(time.Hour)); again != first {
		t.Error("a confirmation changed the stamp")
	}
	s.Type += "x"
	if next := s.Stamped(first, modelStart.Add(time.Hour)); next.Version != 2 || !next.Changed.Equal(modelStart.Add(time.Hour)) {
		t.Errorf("%+v", next.Stamp)
	}
	d := g.dynamic(s).Stamped(nil, modelStart)
	if d.Version != 1 || d.Stamped(d, modelStart.Add(time.Hour)) != d {
		t.Errorf("%+v", d.Stamp)
	}
}

// FuzzDecode: whatever is read is within the bounds and is what Encode writes of it.
func FuzzDecode(f *testing.F) {
	g := newModelGen(7)
	for range 8 {
		s := g.static()
		b, _ := s.Encode()
		f.Add(b)
		for _, d := range []Detail{Categorized, Simple} {
			site := Aggregate(&Site{Static: s, Dynamic: g.dynamic(s)}, d)
			b, _ = site.Static.Encode()
			f.Add(b)
			b, _ = site.Dynamic.Encode()
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeStatic(b); err == nil {
			again, err := s.Encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%v: %s", err, again)
			}
			for _, d := range []Detail{Categorized, Simple} {
				if err := Aggregate(&Site{Key: Key{Site: "a"}, Static: s}, d).Static.Check(); err != nil {
					t.Fatalf("the aggregate: %v", err)
				}
			}
		} else if fail.Sentence(err) == "" {
			t.Fatal("no sentence")
		}
		if d, err := DecodeDynamic(b); err == nil {
			again, err := d.Encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%v: %s", err, again)
			}
		}
	})
}
