package plugin

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) {
	childIfAsked()
	goleak.VerifyTestMain(m)
}

func script(s string) *jsdl.JobDefinition { return adaptertest.Command("fake:" + s) }

// define puts a behaviour into the fake's own words.
func define(b adaptertest.Behaviour) *jsdl.JobDefinition {
	var steps []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			steps = append(steps, fmt.Sprintf(format, args...))
		}
	}
	add(b.Missing, "missing there is no such program")
	add(b.Stdout != "", "out %s", b.Stdout)
	add(b.Stderr != "", "err %s", b.Stderr)
	add(b.Hang, "hang")
	add(b.Sleep > 0, "sleep %d", b.Sleep)
	add(b.Signal != "", "signal %s", b.Signal)
	add(true, "exit %d", b.Exit)
	return script(strings.Join(steps, "; "))
}

// serving gives servers that put a fake adapter on the wire.
func serving(w *fake.World, o fake.Options) func() proto.AdapterServer {
	return func() proto.AdapterServer {
		return newServer(func(adapters.Config) (adapters.Adapter, error) { return w.Open(o), nil }, nil)
	}
}

// The suite sees no difference between an adapter and the same one as a plug-in.
func harness(o fake.Options) adaptertest.Harness {
	world := func(site any) *fake.World { return site.(*fake.World) }
	return adaptertest.Harness{
		Site: func(t testing.TB) any {
			w := fake.NewWorld(8)
			t.Cleanup(w.Close)
			return w
		},
		Open: func(t testing.TB, site any) adapters.Adapter {
			a, err := new(local).open(t, adapters.Config{}, serving(world(site), o))
			if err != nil {
				t.Fatal(err)
			}
			return a
		},
		Define: define, Parallel: true,
		Starts: func(site any, tag adapters.Tag) int { return world(site).Starts(tag) },
		Seen: func(site any, tag adapters.Tag) adaptertest.Seen {
			d := world(site).Definition(tag)
			if d == nil {
				return adaptertest.Seen{}
			}
			p := d.Program()
			seen := adaptertest.Seen{Executable: &p.Executable.Value, Environment: map[string]string{}}
			for _, a := range p.Arguments {
				seen.Arguments = append(seen.Arguments, a.Value)
			}
			for _, v := range p.Environment {
				seen.Environment[v.Name] = v.Value
			}
			if id := d.Description.Identification; id != nil {
				seen.JobName = id.JobName
				if len(id.Projects) > 0 {
					seen.Project = &id.Projects[0]
				}
			}
			return seen
		},
		Manager: adaptertest.Manager{
			Stop:           func(_ testing.TB, site any) { world(site).Down("the manager was stopped") },
			Start:          func(_ testing.TB, site any) { world(site).Up() },
			LoseNextAnswer: func(_ testing.TB, site any, done bool) { world(site).LoseNextAnswer(done) },
			ReuseIDs:       func(_ testing.TB, site any) { world(site).ReuseIDs() },
			Requests:       func(site any) int64 { return world(site).Requests() },
		},
		OldHandles: func(_ any, h adapters.Handle) []adapters.Handle { return []adapters.Handle{fake.OldHandle(h)} },
	}
}

func TestSuite(t *testing.T) { adaptertest.Run(t, harness(fake.Options{})) }

func TestSuitePlain(t *testing.T) {
	h := harness(fake.Options{NoPush: true, NoSuspend: true, NoHold: true, MaxBatch: 7})
	h.Short = true
	adaptertest.Run(t, h)
}
