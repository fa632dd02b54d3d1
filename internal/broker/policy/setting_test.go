package policy

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
)

func TestParseSetting(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"fifo", "fifo"},
		{" fifo { } ", "fifo"},
		{"priority{age=1h}", "priority{age=1h}"},
		{"priority{ age = 90m }", "priority{age=1h30m}"},
		{"priority{age=3600}", "priority{age=1h}"},
		{"priority{age=0}", "priority{age=0s}"},
		{"priority{age=1.5s}", "priority{age=1.5s}"},
		{"fairshare{users=off,halfLife=1d12h}", "fairshare{halfLife=1d12h,users=off}"},
		{"genetic{population=20,mutation=1e-1}", "genetic{mutation=0.1,population=20}"},
		{"none", "none"},
		{"plugin:ours{b=2,a=1h}", "plugin:ours{a=3600,b=2}"},
	} {
		s, err := ParseSetting(c.text)
		if err != nil || s.String() != c.want {
			t.Errorf("%q: %q, %v; want %q", c.text, s, err, c.want)
		}
	}
}

func TestParseSettingRefuses(t *testing.T) {
	for _, c := range []struct {
		text string
		kind fail.Kind
		says string // all of these words
	}{
		{"", fail.Unsupported, "fifo priority edf realtime fairshare least-loaded"},
		{"lifo", fail.Unsupported, "\"lifo\" fifo edf cheapest assignment genetic wqr"},
		{"fifo{age=1h}", fail.Invalid, "fifo takes no parameters"},
		{"priority{old=1h}", fail.Invalid, "no parameter \"old\" age (0s to 30d)"},
		{"priority{age=31d}", fail.Invalid, "age is 31d must be 0s to 30d"},
		{"priority{age=-1}", fail.Invalid, "age 0s to 30d"},
		{"priority{age=soon}", fail.Invalid, "age=soon 1h30m"},
		{"priority{age=1m1h}", fail.Invalid, "age"},
		{"priority{age=1h,age=2h}", fail.Invalid, "twice"},
		{"priority{age}", fail.Invalid, "name=value"},
		{"priority{age=1h", fail.Invalid, "NAME{"},
		{"priority{age=1h} x", fail.Invalid, "NAME{"},
		{"priority{age=NaN}", fail.Invalid, "age"},
		{"priority{age=1e400}", fail.Invalid, "age"},
		{"genetic{population=20.5}", fail.Invalid, "4 to 500 without a fraction"},
		{"fairshare{users=2}", fail.Invalid, "on or off"},
		{"plugin:", fail.Invalid, "plugin:NAME"},
		{"plugin:a/b", fail.Invalid, "plugin:NAME"},
		{"plugin:a{b=c}", fail.Invalid, "number"},
		{strings.Repeat("x", 2000), fail.Invalid, "1024"},
	} {
		_, err := ParseSetting(c.text)
		if !fail.Is(err, c.kind) {
			t.Errorf("%q: %v, want one of the kind %v", c.text, err, c.kind)
			continue
		}
		for w := range strings.FieldsSeq(c.says) {
			if !strings.Contains(fail.Sentence(err), w) {
				t.Errorf("%q: %q does not say %q", c.text, fail.Sentence(err), w)
			}
		}
	}
}

func TestNew(t *testing.T) {
	for _, d := range Catalogue() {
		s := Setting{Name: d.Name}
		var got any
		var err error
		switch d.Kind {
		case Scheduling:
			got, err = NewOrder(s)
		case Selection:
			got, err = NewChoice(s)
		case Pairing:
			got, err = NewMatchmaker(s)
		case Replication:
			got, err = NewReplication(s)
		}
		if err != nil || (reflect.ValueOf(got).IsValid() && !isNil(got)) != (d.Name != "none") {
			t.Errorf("%s %s: %v, %v", d.Kind, d.Name, got, err)
		}
		for _, p := range d.Parameters {
			if !(p.Least <= p.Default && p.Default <= p.Most) || p.What == "" {
				t.Errorf("%s: %+v", d.Name, p)
			}
			bad := Setting{d.Name, map[string]float64{p.Name: math.NaN()}}
			if err := bad.Check(d.Kind); !fail.Is(err, fail.Invalid) {
				t.Errorf("%s: %v", bad, err)
			}
		}
	}
	if _, err := NewOrder(Setting{Name: "least-loaded"}); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "fairshare") {
		t.Errorf("%v", err)
	}
	if _, err := NewOrder(Setting{Name: "plugin:absent"}); !fail.Is(err, fail.Unsupported) {
		t.Errorf("%v", err)
	}
	if err := (Setting{Name: "plugin:x"}).Check(Pairing); !fail.Is(err, fail.Unsupported) {
		t.Errorf("%v", err)
	}
	for _, k := range Kinds() {
		if err := Default(k).Check(k); err != nil {
			t.Error(err)
		}
	}
}

func isNil(x any) bool {
	return reflect.ValueOf(x).Kind() == reflect.Pointer && reflect.ValueOf(x).IsNil()
}

// TestNames: a name stands for one policy, so that a setting needs no kind.
func TestNames(t *testing.T) {
	seen := map[string]Kind{}
	for _, d := range Catalogue() {
		if k, twice := seen[d.Name]; twice && d.Name != "none" {
			t.Errorf("%s is of %s and of %s", d.Name, k, d.Kind)
		}
		seen[d.Name] = d.Kind
		if !isName(d.Name) {
			t.Errorf("%q is no name", d.Name)
		}
	}
}

// anySetting draws a good setting of the catalogue.
func anySetting(t *rapid.T) (Setting, Kind) {
	d := rapid.SampledFrom(Catalogue()).Draw(t, "policy")
	s := Setting{Name: d.Name}
	for _, p := range d.Parameters {
		if !rapid.Bool().Draw(t, "said") {
			continue
		}
		v := rapid.Float64Range(p.Least, p.Most).Draw(t, p.Name)
		if p.Unit == Count || p.Unit == Switch || rapid.Bool().Draw(t, "whole") {
			v = max(math.Trunc(v), math.Ceil(p.Least))
		}
		if v > p.Most {
			v = p.Most
		}
		if s.Parameters == nil {
			s.Parameters = map[string]float64{}
		}
		s.Parameters[p.Name] = v
	}
	return s, d.Kind
}

func TestSettingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, k := anySetting(t)
		got, err := ParseSetting(s.String())
		if err != nil || !got.Equal(s) {
			t.Fatalf("%s gives %s, %v", s, got, err)
		}
		full := s.Complete(k)
		if err := full.Check(k); err != nil || len(full.Parameters) != len(Find(k, s.Name).Parameters) {
			t.Fatalf("%s completed is %s, %v", s, full, err)
		}
	})
}

func FuzzParseSetting(f *testing.F) {
	for _, s := range []string{"fifo", "priority{age=1h30m}", "plugin:x{a=1,b=2d}", "wqr{copies=3,waste=.5}", "fairshare{users=on}", "a{b=c=d}", "priority{age=1e3s}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSetting(text)
		if err != nil {
			return
		}
		again, err := ParseSetting(s.String())
		if err != nil || !again.Equal(s) || again.String() != s.String() {
			t.Fatalf("%q: %q is read as %q, %v", text, s, again, err)
		}
	})
}
