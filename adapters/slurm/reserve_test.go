package slurm

import (
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// As Slurm 22.05 says it. CoreCnt is wrong for several nodes, and stays so.
const reservationsSaid = `ReservationName=portolan.0a1b2c3d.w2 StartTime=1795992949 EndTime=1795993009 Duration=00:01:00 Nodes=n[2-3] NodeCnt=2 CoreCnt=10 Features=(null) PartitionName=debug Flags=NO_HOLD_JOBS_AFTER_END   NodeName=n2 CoreIDs=0-3   NodeName=n3 CoreIDs=0-3 TRES=cpu=8 Users=root Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)
ReservationName=maint StartTime=1795992628 EndTime=1795993009 Duration=00:01:00 Nodes=(null) NodeCnt=0 CoreCnt=0 Features=(null) PartitionName=(null) Flags=MAINT,SPEC_NODES TRES=(null) Users=root State=ACTIVE
ReservationName=broken StartTime=soon EndTime=1795993009 State=ACTIVE
`

func TestParseReservations(t *testing.T) {
	want := []booked{
		{Name: "portolan.0a1b2c3d.w2", Partition: "debug", From: time.Unix(1795992949, 0), Until: time.Unix(1795993009, 0), Nodes: []string{"n2", "n3"}, CPUs: 8},
		{Name: "maint", From: time.Unix(1795992628, 0), Until: time.Unix(1795993009, 0), Active: true},
	}
	if got := parseReservations(reservationsSaid); !reflect.DeepEqual(got, want) {
		t.Errorf("the list is read as %+v\nwant %+v", got, want)
	}
	if got := parseReservations("No reservations in the system\n"); len(got) != 0 {
		t.Errorf("an empty list is read as %+v", got)
	}
}

// What is asked of Slurm, on clusters of several kinds.
func TestPlanBooking(t *testing.T) {
	info := &siteInfo{
		Nodes: []node{
			{Name: "n1", CPUs: 8, Threads: 2, Partitions: []string{"a", "small"}},
			{Name: "n2", CPUs: 8, Threads: 2, Partitions: []string{"a"}},
			{Name: "n3", CPUs: 16, Threads: 2, Partitions: []string{"a"}},
		},
		Partitions: []partition{{Name: "small"}, {Name: "a", Default: true}},
	}
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		a := &Adapter{site: site{settings: &Settings{}, own: account{user: "gw", uid: 7}}, instance: "0a1b2c3d"}
		for name, c := range map[string]struct {
			r     adapters.Reservation
			plug  string
			words string // of scontrol's, beside the usual
			kind  fail.Kind
		}{
			"CPUs are cores":                  {r: adapters.Reservation{CPUs: 5}, words: "PartitionName=a CoreCnt=3"},
			"spread over nodes":               {r: adapters.Reservation{CPUs: 10, Nodes: 3}, words: "PartitionName=a NodeCnt=3 CoreCnt=6"},
			"whole nodes are all their cores": {r: adapters.Reservation{Nodes: 2}, words: "PartitionName=a NodeCnt=2 CoreCnt=8"},
			"of another share":                {r: adapters.Reservation{CPUs: 8, Share: "small"}, words: "PartitionName=small CoreCnt=4"},
			"only whole nodes":                {r: adapters.Reservation{CPUs: 9}, plug: "select/linear", words: "PartitionName=a NodeCnt=2"},
			"too many for a share":            {r: adapters.Reservation{CPUs: 9, Share: "small"}, kind: fail.Unsupported},
			"too many nodes":                  {r: adapters.Reservation{Nodes: 4}, kind: fail.Unsupported},
			"no such share":                   {r: adapters.Reservation{CPUs: 1, Share: "b"}, kind: fail.Unsupported},
			"no such account":                 {r: adapters.Reservation{CPUs: 1, Account: "no-such-account-here"}, kind: fail.Unsupported},
			"Slurm has not told":              {r: adapters.Reservation{CPUs: 1}, plug: "-", kind: fail.Unavailable},
			"nothing":                         {kind: fail.Invalid},
		} {
			f := &facts{Select: "select/cons_tres"}
			switch c.plug {
			case "":
			case "-":
				f.Select = ""
			default:
				f.Select = c.plug
			}
			c.r.Tag, c.r.From, c.r.Until = "t", now.Add(time.Hour+time.Millisecond), now.Add(2*time.Hour+time.Millisecond)
			b, err := a.planBooking(info, f, &c.r)
			if c.words == "" {
				if !fail.Is(err, c.kind) {
					t.Errorf("%s: %+v, %v; want %v", name, b, err, c.kind)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			flags := "Flags=NO_HOLD_JOBS_AFTER_END"
			if !f.cores() {
				flags += ",REPLACE_DOWN"
			}
			// The window is to the second, and never shorter than it was asked for.
			want := append(append([]string{
				"create", "reservation", "ReservationName=portolan.0a1b2c3d.t", "StartTime=" + clock(now.Add(time.Hour)), "EndTime=" + clock(now.Add(2*time.Hour+time.Second)), "Users=gw",
			}, strings.Fields(c.words)...), flags)
			if got := b.options(); !slices.Equal(got, want) {
				t.Errorf("%s: %q\nwant %q", name, got, want)
			}
		}
	})
}

func TestReservationHandle(t *testing.T) {
	a := &Adapter{instance: "0a1b2c3d"}
	name, tag, err := reservationName(reservationHandle(a.reservationFor("t-1")))
	if err != nil || name != "portolan.0a1b2c3d.t-1" || tag != "t-1" {
		t.Errorf("a handle is read as %q, %q, %v", name, tag, err)
	}
	for _, h := range []string{"", "nonsense", "slurm/1 t", "slurm-reservation/1 ", "slurm-reservation/1 maint", "slurm-reservation/1 portolan..t", "slurm-reservation/1 portolan.x.", "slurm-reservation/1 portolan.x.t Users=me", "slurm-reservation/1 portolan.x y.t"} {
		if name, _, err := reservationName(adapters.Handle(h)); !fail.Is(err, fail.Invalid) {
			t.Errorf("the handle %q is read as %q, %v", h, name, err)
		}
	}
}

// What is said of a reservation by what Slurm has and what was written down.
func TestReservationStates(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(spool(dir).path(dirReservations), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		record := func(made bool, began, from, until time.Duration) *reservationRecord {
			return &reservationRecord{Tag: "t", Made: made, Began: now.Add(began), Share: "a", From: now.Add(from), Until: now.Add(until)}
		}
		at := func(active bool, from, until time.Duration) *booked {
			return &booked{Name: "portolan.0a1b2c3d.t", Partition: "a", From: now.Add(from), Until: now.Add(until), Nodes: []string{"n1", "n2"}, CPUs: 3, Active: active}
		}
		const h = time.Hour
		for name, c := range map[string]struct {
			record  *reservationRecord
			at      *booked
			up      time.Duration // for which Slurm has answered; 0: an hour
			down    string
			phase   adapters.ReservationPhase
			problem string // a word of it
			kept    bool   // the record is there afterwards
		}{
			"never made":                        {phase: adapters.ReservationGone},
			"pending":                           {record: record(true, -h, h, 2*h), at: at(false, h, 2*h), phase: adapters.ReservationPending, kept: true},
			"active":                            {record: record(true, -h, -h, 2*h), at: at(true, -h, 2*h), phase: adapters.ReservationActive, kept: true},
			"active by Slurm's clock":           {record: record(true, -h, time.Second, 2*h), at: at(true, time.Second, 2*h), phase: adapters.ReservationActive, kept: true},
			"not yet by Slurm's clock":          {record: record(true, -h, -time.Second, 2*h), at: at(false, -time.Second, 2*h), phase: adapters.ReservationPending, kept: true},
			"over, with jobs in it":             {record: record(true, -h, -h, -time.Second), at: at(false, -h, -time.Second), phase: adapters.ReservationEnded, kept: true},
			"over":                              {record: record(true, -h, -h, -time.Second), phase: adapters.ReservationEnded, kept: true},
			"over for long":                     {record: record(true, -1000*h, -1000*h, -999*h), phase: adapters.ReservationGone},
			"deleted by somebody":               {record: record(true, -h, h, 2*h), phase: adapters.ReservationGone, problem: "deleted", kept: true},
			"an answer was lost":                {record: record(false, -h, h, 2*h), at: at(false, h, 2*h), phase: adapters.ReservationPending, kept: true},
			"a question was lost just now":      {record: record(false, -time.Second, h, 2*h), phase: adapters.ReservationUnknown, kept: true},
			"a question was lost, and it hangs": {record: record(false, -h, h, 2*h), up: time.Second, phase: adapters.ReservationUnknown, kept: true},
			"a question was lost":               {record: record(false, -h, h, 2*h), phase: adapters.ReservationGone},
			"nobody remembers it":               {at: at(false, h, 2*h), phase: adapters.ReservationPending, kept: true},
			"a node is down":                    {record: record(true, -h, h, 2*h), at: at(false, h, 2*h), down: "n2", phase: adapters.ReservationPending, problem: "n2", kept: true},
		} {
			a := &Adapter{site: site{settings: &Settings{}, spool: spool(dir)}, log: slog.New(slog.DiscardHandler), instance: "0a1b2c3d"}
			if a.health.Since = now.Add(-h); c.up > 0 {
				a.health.Since = now.Add(-c.up)
			}
			if err := a.spool.removeReservation("t"); err != nil {
				t.Fatal(err)
			}
			if c.record != nil {
				if err := a.spool.writeReservation(c.record); err != nil {
					t.Fatal(err)
				}
			}
			s := a.reservation("t", c.at, map[string]bool{c.down: true}, now)
			held := c.phase != adapters.ReservationGone && c.phase != adapters.ReservationUnknown
			if s.Phase != c.phase || (len(s.Handle) > 0) != held || (s.Err != nil) != (c.phase == adapters.ReservationUnknown) || (s.Problem != "") != (c.problem != "") || !strings.Contains(s.Problem, c.problem) {
				t.Errorf("%s: %+v, want %v", name, s, c.phase)
			}
			if r, err := a.spool.readReservation("t"); err != nil || (r != nil) != c.kept {
				t.Errorf("%s: the record afterwards is %+v, %v", name, r, err)
			}
		}
	})
}

// Without the right to make them, reservations are refused in words, jobs in them too.
func TestNoReservations(t *testing.T) {
	a := &Adapter{site: site{settings: &Settings{}}, reserving: make(chan struct{}, 1)}
	until := time.Now().Add(time.Hour)
	if got := a.Reserve(t.Context(), []adapters.Reservation{{Tag: "t", CPUs: 1, Until: until}, {Tag: "u"}}); !fail.Is(got[0].Err, fail.Unsupported) || !fail.Is(got[1].Err, fail.Invalid) {
		t.Errorf("Reserve gives %+v", got)
	}
	if _, err := a.Reservations(t.Context(), nil); !fail.Is(err, fail.Unsupported) {
		t.Errorf("Reservations gives %v", err)
	}
	if errs := a.Unreserve(t.Context(), []adapters.Handle{reservationHandle("portolan.x.t"), nil}); !fail.Is(errs[0], fail.Unsupported) || !fail.Is(errs[1], fail.Invalid) {
		t.Errorf("Unreserve gives %v", errs)
	}
	if err := a.within(&plan{}, &adapters.Job{Tag: "t", Reservation: reservationHandle("portolan.x.t")}); !fail.Is(err, fail.Unsupported) {
		t.Errorf("a job in one gives %v", err)
	}
	if a.Properties().Reserve {
		t.Error("they are claimed all the same")
	}
}
