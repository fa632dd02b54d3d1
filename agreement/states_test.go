package agreement

import (
	"testing"

	"github.com/portolan-project/portolan/internal/fail"
)

// TestAgreementStates walks every state with every event (§7.1).
func TestAgreementStates(t *testing.T) {
	events := []Event{EventAccepted, EventRejected, EventTerminate, EventTerminated, EventCompleted, "no such event"}
	want := map[State][]State{ // by event; "" is none
		Pending:                {Observed, Rejected, PendingAndTerminating, "", "", ""},
		PendingAndTerminating:  {ObservedAndTerminating, Rejected, PendingAndTerminating, Terminated, "", ""},
		Observed:               {"", "", ObservedAndTerminating, "", Complete, ""},
		ObservedAndTerminating: {"", "", ObservedAndTerminating, Terminated, Complete, ""},
		Rejected:               {"", "", "", "", "", ""},
		Complete:               {"", "", "", "", "", ""},
		Terminated:             {"", "", "", "", "", ""},
		"no such state":        {"", "", "", "", "", ""},
	}
	if len(transitions) != len(want)-1 {
		t.Errorf("the table has %d states", len(transitions))
	}
	for s, row := range want {
		final := true
		for i, e := range events {
			next, err := s.After(e)
			if row[i] == "" {
				if !fail.Is(err, fail.Conflict) || next != s {
					t.Errorf("%s, %s: %s, %v", s, e, next, err)
				}
				continue
			}
			final = false
			if err != nil || next != row[i] {
				t.Errorf("%s, %s: %s, %v; want %s", s, e, next, err, row[i])
			}
			if s.Watched() && next == Rejected {
				t.Errorf("%s became %s", s, next)
			}
		}
		if known := s != "no such state"; s.Valid() != known || s.Final() != (final && known) {
			t.Errorf("%s: valid %v, final %v", s, s.Valid(), s.Final())
		}
	}
}

// TestServiceStates walks every state and sub-state with every event (§7.2).
func TestServiceStates(t *testing.T) {
	none := ServicePoint{}
	events := []ServiceEvent{EventReady, EventUsed, EventIdle, EventDone, "no such event"}
	ready, used, idle, over := ServicePoint{Ready, ""}, ServicePoint{Ready, Processing}, ServicePoint{Ready, Idle}, ServicePoint{Completed, ""}
	want := map[ServicePoint][]ServicePoint{
		{NotReady, ""}:           {ready, used, idle, over, none},
		{Ready, ""}:              {ready, used, idle, over, none},
		{Ready, Processing}:      {none, used, idle, over, none},
		{Ready, Idle}:            {none, used, idle, over, none},
		{Completed, ""}:          {none, none, none, none, none},
		{NotReady, Processing}:   {none, none, none, none, none},
		{Completed, Idle}:        {none, none, none, none, none},
		{"no such state", ""}:    {none, none, none, none, none},
		{Ready, "no such thing"}: {none, none, none, none, none},
	}
	valid := 0
	for p, row := range want {
		if p.Valid() {
			valid++
		}
		for i, e := range events {
			next, err := p.After(e)
			switch {
			case row[i] == none && (!fail.Is(err, fail.Conflict) || next != p):
				t.Errorf("%v, %s: %v, %v", p, e, next, err)
			case row[i] != none && (err != nil || next != row[i] || !next.Valid() || !p.Valid()):
				t.Errorf("%v, %s: %v, %v; want %v", p, e, next, err, row[i])
			}
		}
	}
	if valid != 5 {
		t.Errorf("%d states are valid", valid)
	}
}

// TestGuaranteeStates walks every state with every assessment (§7.3).
func TestGuaranteeStates(t *testing.T) {
	to := map[Assessment]GuaranteeState{AssessedFulfilled: Fulfilled, AssessedViolated: Violated, AssessedNothing: NotDetermined}
	for _, s := range []GuaranteeState{NotDetermined, Fulfilled, Violated} {
		for a, want := range to {
			if next, err := s.After(a); err != nil || next != want {
				t.Errorf("%s, %s: %s, %v", s, a, next, err)
			}
		}
		if _, err := s.After("no such assessment"); !fail.Is(err, fail.Conflict) || !s.Valid() {
			t.Error(s, err)
		}
	}
	if _, err := GuaranteeState("no such state").After(AssessedNothing); !fail.Is(err, fail.Conflict) || GuaranteeState("").Valid() {
		t.Error(err)
	}
	if len(guaranteeTransitions) != 3 {
		t.Error("the table has other states")
	}
}
