package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/jsdl"
)

// A site whose manager knows no deadlines is given a time limit instead; what waits
// beyond its deadline ends, and says why.
func TestDeadlineKeptHere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) { c.Sites[0].Model.Ahead = new(int) })
		long := g.must("ada", asking("sleep 1h", ""))
		g.until(long, bes.Running, "Executing")
		in := func(d time.Duration) string {
			return placementOf("<q:Deadline>" + time.Now().Add(d).UTC().Format("2006-01-02T15:04:05Z") + "</q:Deadline><q:Priority>3</q:Priority>")
		}
		late, early := g.must("ada", asking("exit 0", in(30*time.Minute))), g.must("ada", asking("exit 0", in(2*time.Hour)))
		s := g.until(late, bes.Failed, "")
		if why := s.Details.Reason; !strings.Contains(why, "Deadline") || !strings.Contains(why, "passed") {
			t.Errorf("a job that waited beyond its deadline ended because: %s", why)
		}
		g.until(early, bes.Finished, "")
	})
}

func TestWithin(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	def, problems := jsdl.Parse(asking("exit 0", placementOf("<q:Share>long</q:Share><q:Deadline>2026-11-28T13:00:00Z</q:Deadline><q:NotBefore>2026-11-28T11:00:00Z</q:NotBefore>")), jsdl.Options{})
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	less, some := keptHere(def)
	if p := less.Description.Resources.Placement; !some || p.Deadline != nil || p.NotBefore != nil || p.Share == nil {
		t.Errorf("kept here: %v, left %+v", some, p)
	}
	if p := def.Description.Resources.Placement; p.Deadline == nil || p.NotBefore == nil {
		t.Error("the job's own definition was changed")
	}
	if _, some := keptHere(less); some {
		t.Error("there is still something to be kept here")
	}
	limit := func(d *jsdl.JobDefinition) string {
		if l := d.Description.Application.POSIX.Limits.WallTime; l != nil {
			return l.String()
		}
		return "none"
	}
	limited := within(def, now.Add(time.Hour), now)
	for what, c := range map[string][2]string{
		"an hour left":         {limit(limited), "3600"},
		"the original":         {limit(def), "none"},
		"a limit that is less": {limit(within(limited, now.Add(2*time.Hour), now)), "3600"},
		"a limit that is more": {limit(within(limited, now.Add(time.Minute), now)), "60"},
		"hardly anything left": {limit(within(def, now.Add(time.Millisecond), now)), "1"},
		"no deadline":          {limit(within(def, time.Time{}, now)), "none"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: the limit is %s, not %s", what, c[0], c[1])
		}
	}
}
