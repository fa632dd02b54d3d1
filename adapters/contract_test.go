package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Each kind of error has a class, and what is no error of ours claims nothing.
func TestClassOf(t *testing.T) {
	want := map[fail.Kind]adapters.Class{
		fail.Internal: adapters.Doubtful, fail.Uncertain: adapters.Doubtful,
		fail.Unavailable: adapters.Transient, fail.Exhausted: adapters.Transient, fail.NotAccepting: adapters.Transient,
		fail.Invalid: adapters.Permanent, fail.Unsupported: adapters.Permanent, fail.Denied: adapters.Permanent,
		fail.Unauthenticated: adapters.Permanent, fail.NotFound: adapters.Permanent, fail.Conflict: adapters.Permanent,
	}
	for _, k := range fail.Kinds() {
		class, ok := want[k]
		if !ok {
			t.Errorf("the kind %q has no class", k)
		}
		for _, err := range []error{
			fail.Errorf("test", k, "", "x"),
			fmt.Errorf("wrapped: %w", fail.Errorf("test", k, "", "x")),
			errors.Join(io.EOF, fail.Errorf("test", k, "", "x")),
		} {
			if got := adapters.ClassOf(err); got != class {
				t.Errorf("%v is of class %d, want %d", err, got, class)
			}
		}
	}
	// The outermost kind decides: an adapter that knows better says so.
	if got := adapters.ClassOf(fail.E("outer", fail.Uncertain, "", fail.E("inner", fail.Unavailable, "", io.EOF))); got != adapters.Doubtful {
		t.Errorf("an uncertain error over one that is unavailable is of class %d", got)
	}
	if adapters.ClassOf(nil) != adapters.None || adapters.ClassOf(io.EOF) != adapters.Doubtful {
		t.Errorf("nil is %d, an unknown error %d", adapters.ClassOf(nil), adapters.ClassOf(io.EOF))
	}
}

func TestCapacity(t *testing.T) {
	linux := adapters.Environment{
		ID: "a", OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 4, CPUSpeed: 3e9, Memory: 8, VirtualMemory: 10,
		Disk: 100, HostNames: []string{"n2", "n1"}, Nodes: 2,
	}
	other := adapters.Environment{ID: "b", OperatingSystem: "LINUX", OSVersion: "5.10", CPUArchitecture: "arm", CPUs: 1, CPUSpeed: 1e9, Memory: 1, Nodes: 3, HostNames: []string{"n1", "n3"}}
	shares := []adapters.Share{{ID: "x", Slots: 8, FreeSlots: 5, Open: true}, {ID: "y", Slots: 2, FreeSlots: 2}}
	for _, c := range []struct {
		name string
		r    adapters.Resources
		want adapters.Capacity
	}{
		{"nothing", adapters.Resources{}, adapters.Capacity{}},
		{"one environment", adapters.Resources{Environments: []adapters.Environment{linux}}, adapters.Capacity{
			Hosts: 2, OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 8, CPUSpeed: 3e9,
			Memory: 16, VirtualMemory: 20, Disk: 200, HostNames: []string{"n1", "n2"},
		}},
		// What differs is left out, speed is the slowest, hosts are named once, and only open shares have room.
		{"two, with shares", adapters.Resources{Environments: []adapters.Environment{linux, other}, Shares: shares}, adapters.Capacity{
			Hosts: 5, OperatingSystem: "LINUX", CPUs: 11, CPUSpeed: 1e9, Memory: 19, VirtualMemory: 20, Disk: 200, Slots: 10, FreeSlots: 5,
			HostNames: []string{"n1", "n2", "n3"},
		}},
	} {
		before := fmt.Sprintf("%+v", c.r)
		if got := c.r.Capacity(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s sums up to %+v\nwant %+v", c.name, got, c.want)
		}
		if after := fmt.Sprintf("%+v", c.r); after != before {
			t.Errorf("summing up %s changes it:\n%s\n%s", c.name, before, after)
		}
	}
}

// Sums do not depend on the order of environments.
func TestCapacityOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "environments")
		var r adapters.Resources
		for i := range n {
			r.Environments = append(r.Environments, adapters.Environment{
				ID: fmt.Sprint(i), OperatingSystem: rapid.SampledFrom([]string{"LINUX", "Solaris"}).Draw(t, "os"),
				CPUs: rapid.IntRange(0, 128).Draw(t, "cpus"), Nodes: rapid.IntRange(0, 1000).Draw(t, "nodes"),
				Memory: rapid.Int64Range(0, 1<<40).Draw(t, "memory"), CPUSpeed: rapid.Float64Range(0, 5e9).Draw(t, "speed"),
			})
		}
		forth := r.Capacity()
		slices.Reverse(r.Environments)
		if back := r.Capacity(); !reflect.DeepEqual(forth, back) {
			t.Fatalf("%+v one way, %+v the other", forth, back)
		}
	})
}

type inner struct {
	Host string `yaml:"host"`
	Port int    `yaml:"port,omitempty"`
}

type common struct {
	Grace string `yaml:"grace"`
}

// own reads itself: what is in it is its own affair.
type own struct{ words int }

func (o *own) UnmarshalYAML(n *yaml.Node) error {
	o.words = len(n.Content)
	return nil
}

type settings struct {
	common  `yaml:",inline"`
	Name    string            `yaml:"name"`
	Plain   int               // by its name in small letters
	Hidden  string            `yaml:"-"`
	One     inner             `yaml:"one"`
	Pointer *inner            `yaml:"pointer"`
	List    []inner           `yaml:"list"`
	Map     map[string]inner  `yaml:"map"`
	Words   map[string]string `yaml:"words"`
	Own     own               `yaml:"own"`
	Any     any               `yaml:"any"`
}

func TestSettingsDecode(t *testing.T) {
	s, err := adapters.ParseSettings(`
name: x
grace: 3s
plain: 4
one: &host {host: h, port: 1}
pointer: *host
list: [{host: a}, {host: b, port: 2}, *host]
map: {k: {host: m}}
words: {any: thing, goes: here}
own: {whatever: it, likes: here}
any: {free: [1, {as: it}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	h := inner{"h", 1}
	var got settings
	if err := s.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Name != "x" || got.Grace != "3s" || got.Plain != 4 || got.One != h || got.Pointer == nil || *got.Pointer != h || got.Own.words != 4 ||
		!slices.Equal(got.List, []inner{{"a", 0}, {"b", 2}, h}) || got.Map["k"].Host != "m" || len(got.Words) != 2 || got.Any == nil {
		t.Errorf("decoded as %+v", got)
	}
	// What is not said keeps the value that it had.
	got = settings{Name: "default"}
	for _, text := range []string{"", "  \n", "plain: 1"} {
		s, err := adapters.ParseSettings(text)
		if err != nil || s.Decode(&got) != nil || got.Name != "default" {
			t.Errorf("%q gives %+v, %v", text, got, err)
		}
	}
	if got.Plain != 1 {
		t.Errorf("plain is %d", got.Plain)
	}
}

// A struct may keep the keys that it does not name, and share some with others.
func TestSettingsInline(t *testing.T) {
	type open struct {
		*common `yaml:",inline"`
		Name    string           `yaml:"name,omitempty"`
		Rest    map[string]inner `yaml:",flow,inline"`
	}
	s, err := adapters.ParseSettings("name: x\ngrace: 1s\nn1: {host: a}\nn2: {host: b}\n")
	if err != nil {
		t.Fatal(err)
	}
	got := open{common: &common{}}
	if err := s.Decode(&got); err != nil || got.Name != "x" || got.Grace != "1s" || len(got.Rest) != 2 || got.Rest["n2"].Host != "b" {
		t.Errorf("decoded as %+v (%v)", got, err)
	}
	if s, err = adapters.ParseSettings("n1: {hots: a}"); err != nil {
		t.Fatal(err)
	}
	if err := s.Decode(&got); err == nil || !strings.Contains(err.Error(), `"hots"`) {
		t.Errorf("a slip in what is not named gives %v", err)
	}
}

// A slip in the settings is an error that says where it is and what is known there.
func TestSettingsRefuse(t *testing.T) {
	for _, c := range []struct{ name, text, line, says string }{
		{"an unknown key", "name: x\nnmae: y\n", "line 2", `"nmae"`},
		{"what is known instead", "nmae: y\n", "line 1", "any, grace, list, map, name"},
		{"one of an inner", "one:\n  host: h\n  prot: 1\n", "line 3", `"prot"`},
		{"one behind a pointer", "pointer:\n  prot: 1\n", "line 2", `"prot"`},
		{"one in a list", "list:\n- host: a\n- hots: b\n", "line 3", `"hots"`},
		{"one in a map", "map:\n  k:\n    hots: b\n", "line 3", `"hots"`},
		{"one behind an alias", "any: &a\n  hots: b\none: *a\n", "line 2", `"hots"`},
		{"a hidden one", "hidden: x\n", "line 1", `"hidden"`},
		{"another case", "Name: x\n", "line 1", `"Name"`},
		{"a key that is there twice", "name: x\nplain: 1\nname: y\n", "line 3", "name"},
		{"an inner one that is there twice", "one:\n  host: a\n  host: b\n", "line 3", "host"},
		{"another type", "name: x\nplain: many\n", "line 2", "many"},
		{"a list for a mapping", "one: [1]\n", "line 1", ""},
		{"a mapping for a word", "name: {a: b}\n", "line 1", ""},
		{"a merge, whose keys can't be told", "any: &a {name: x}\n<<: *a\n", "line 2", `"<<"`},
	} {
		s, err := adapters.ParseSettings(c.text)
		if err == nil {
			err = s.Decode(&settings{})
		}
		if !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), c.line) || !strings.Contains(fail.Sentence(err), c.says) {
			t.Errorf("%s: %v; want invalid, naming %s and %s", c.name, err, c.line, c.says)
		}
	}
	for _, text := range []string{"- a\n- b\n", "word", "a: [", "\tx: 1", "a: *nowhere"} {
		if _, err := adapters.ParseSettings(text); !fail.Is(err, fail.Invalid) {
			t.Errorf("%q is read: %v", text, err)
		}
	}
}

func TestSettingsEqual(t *testing.T) {
	parse := func(text string) adapters.Settings {
		s, err := adapters.ParseSettings(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := parse("name: x\none: {host: h}\n")
	for text, same := range map[string]bool{
		"name: x\none: {host: h}\n":       true,
		"\n\nname: x\n\none: {host: h}\n": true,
		"name: y\none: {host: h}\n":       false,
		"name: x\n":                       false,
		"":                                false,
	} {
		if a.Equal(parse(text)) != same || parse(text).Equal(a) != same {
			t.Errorf("%q is equal: %v, want %v", text, !same, same)
		}
	}
	if !parse("").Equal(adapters.Settings{}) {
		t.Error("no settings differ from none")
	}
	// They stand inside a larger document and go back into one.
	var doc struct {
		Sites []struct {
			Settings adapters.Settings `yaml:"settings"`
		} `yaml:"sites"`
	}
	text := "sites:\n    - settings:\n        name: x\n        typo: 1\n"
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if err := doc.Sites[0].Settings.Decode(&settings{}); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("a typo in a document gives %v, want its line there", err)
	}
	if back, err := yaml.Marshal(doc); err != nil || string(back) != text {
		t.Errorf("written back as %q (%v)", back, err)
	}
	if err := yaml.Unmarshal([]byte("sites:\n- settings: [1]\n"), &doc); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("settings that are a list give %v", err)
	}
}

// Whatever stands there, settings are read or refused, and what is read is equal to
// itself.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{
		"", "name: x", "one: &a {host: h}\npointer: *a", "list: [{host: a}]", "a: &a [*a]", "one: &x {host: *x}", "<<: {name: x}", "? {a: b}\n: c", "name: !!binary aGk=",
		"map: &m\n  k: *m\n", "&a a: *a", "name: x\nname: y", "any: &a [&b [&c [x, x], *c], *b]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := adapters.ParseSettings(text)
		if err != nil {
			if !fail.Is(err, fail.Invalid) {
				t.Fatalf("%v is not invalid", err)
			}
			return
		}
		if err := s.Decode(&settings{}); err != nil && !fail.Is(err, fail.Invalid) {
			t.Fatalf("%v is not invalid", err)
		}
		s.Equal(s)
	})
}

func TestRegistryOrder(t *testing.T) {
	r := adapters.Registry{}
	if got := r.Types(); len(got) != 0 {
		t.Errorf("an empty registry has %v", got)
	}
	if _, err := r.Open("x", adapters.Config{}); !fail.Is(err, fail.Invalid) {
		t.Errorf("an empty registry opens x: %v", err)
	}
	var seen adapters.Config
	for _, kind := range []string{"c", "a", "b"} {
		r[kind] = func(c adapters.Config) (adapters.Adapter, error) { seen = c; return nil, nil }
	}
	if got := r.Types(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("the types are %v", got)
	}
	if _, err := r.Open("b", adapters.Config{Site: "s", Dir: "d"}); err != nil || seen.Site != "s" || seen.Dir != "d" {
		t.Errorf("the factory got %+v (%v)", seen, err)
	}
}

// A tag that is valid is safe wherever adapters put it, and no other is.
func TestTagProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "tag")
		ok := s != "" && len(s) <= adapters.MaxTag && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
		for _, r := range s {
			ok = ok && (r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		}
		if got := adapters.Tag(s).Validate() == nil; got != ok {
			t.Fatalf("%q is valid: %v, want %v", s, got, ok)
		}
	})
}

// However slow watchers are, each gets the newest evidence of every job, and
// never older after newer.
func TestFeedNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const jobs, each = 20, 50
		var f adapters.Feed
		ctx, stop := context.WithCancel(t.Context())
		var watchers sync.WaitGroup
		last := make([]map[adapters.Tag]float64, 3)
		for i := range last {
			last[i] = map[adapters.Tag]float64{}
			watchers.Go(func() {
				_ = f.Watch(ctx, func(batch []adapters.Evidence) {
					for _, e := range batch {
						if e.Progress < last[i][e.Tag] {
							t.Errorf("watcher %d gets %v of %s after %v", i, e.Progress, e.Tag, last[i][e.Tag])
						}
						last[i][e.Tag] = e.Progress
					}
					time.Sleep(time.Duration(i) * time.Second) // the bubble's time
				})
			})
		}
		synctest.Wait()
		var publishers sync.WaitGroup
		for j := range jobs {
			publishers.Go(func() {
				for n := range each {
					f.Publish(adapters.Evidence{Tag: adapters.Tag(fmt.Sprint(j)), Progress: float64(n + 1)})
					time.Sleep(time.Duration(j) * time.Millisecond)
				}
			})
		}
		publishers.Wait()
		time.Sleep(time.Hour)
		stop()
		watchers.Wait()
		for i := range last {
			for j := range jobs {
				if got := last[i][adapters.Tag(fmt.Sprint(j))]; got != each {
					t.Errorf("watcher %d last saw %v of job %d, want %d", i, got, j, each)
				}
			}
		}
		f.Publish(adapters.Evidence{Tag: "after"}) // nobody is there any more
	})
}

func TestReservationValidate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	good := adapters.Reservation{Tag: "t", CPUs: 4, Nodes: 2, From: now.Add(time.Hour), Until: now.Add(2 * time.Hour)}
	for name, c := range map[string]struct {
		change func(*adapters.Reservation)
		ok     bool
	}{
		"as it is":                {func(*adapters.Reservation) {}, true},
		"from now":                {func(r *adapters.Reservation) { r.From = time.Time{} }, true},
		"begun already":           {func(r *adapters.Reservation) { r.From = now.Add(-time.Hour) }, true},
		"nodes only":              {func(r *adapters.Reservation) { r.CPUs = 0 }, true},
		"CPUs only":               {func(r *adapters.Reservation) { r.Nodes = 0 }, true},
		"no tag":                  {func(r *adapters.Reservation) { r.Tag = "no tag" }, false},
		"nothing":                 {func(r *adapters.Reservation) { r.CPUs, r.Nodes = 0, 0 }, false},
		"less than nothing":       {func(r *adapters.Reservation) { r.Nodes = -1 }, false},
		"fewer CPUs than nodes":   {func(r *adapters.Reservation) { r.CPUs = 1 }, false},
		"no end":                  {func(r *adapters.Reservation) { r.Until = time.Time{} }, false},
		"an end at the beginning": {func(r *adapters.Reservation) { r.Until = r.From }, false},
		"over":                    {func(r *adapters.Reservation) { r.From, r.Until = now.Add(-time.Hour), now }, false},
	} {
		r := good
		c.change(&r)
		if err := r.Validate(now); (err == nil) != c.ok || err != nil && !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := adapters.ReservationState{From: now, Until: now.Add(time.Minute)}
	for at, want := range map[time.Duration]adapters.ReservationPhase{
		-1: adapters.ReservationPending, 0: adapters.ReservationActive, time.Minute - 1: adapters.ReservationActive, time.Minute: adapters.ReservationEnded,
	} {
		if got := s.PhaseAt(now.Add(at)); got != want {
			t.Errorf("%v after its beginning a reservation of a minute is %v, want %v", at, got, want)
		}
	}
	words := map[string]bool{}
	for _, p := range adapters.ReservationPhases() {
		words[p.String()] = true
	}
	if len(words) != 5 || words[""] || adapters.ReservationPhase(99).String() != "reservation phase 99" {
		t.Errorf("the phases are %v", words)
	}
	j := adapters.Job{Tag: "t"}
	if err := j.WithoutReservations("test"); err != nil {
		t.Errorf("a job without a reservation is refused: %v", err)
	}
	if j.Reservation = adapters.Handle("x"); !fail.Is(j.WithoutReservations("test"), fail.Unsupported) {
		t.Error("a job in a reservation is not refused")
	}
}
