package adaptertest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/adapters"
)

// part is one thing that is demanded of adapters.
type part struct {
	name    string
	test    func(*bench)
	claimed func(adapters.Properties) bool // the ability that it is about; nil: of everybody
	details []string                       // what Harness.Lacks may name below it
}

// parts are in the order of what an adapter's author would want to see first.
var parts = []part{
	{name: "Properties", test: testProperties},
	{name: "Exits", test: testExits, details: exitNames()},
	{name: "Signal", test: testSignal, details: signals},
	{name: "Missing", test: testMissing},
	{name: "Nothing", test: testNothing},
	{name: "BadTags", test: testBadTags},
	{name: "BadHandles", test: testBadHandles},
	{name: "UnknownJob", test: testUnknown},
	{name: "SameTagTwice", test: testSameTag},
	{name: "SameTagAtOnce", test: testSameTagAtOnce},
	{name: "Find", test: testFind},
	{name: "Batch", test: testBatch},
	{name: "Cancel", test: testCancel},
	{name: "CancelAtOnce", test: testCancelAtOnce},
	{name: "CancelEnded", test: testCancelEnded},
	{name: "CancelRace", test: testCancelRace},
	{name: "CancelQueued", test: testCancelQueued},
	{name: "CancelHeld", test: testCancelHeld, claimed: claimsHold},
	{name: "CancelSuspended", test: testCancelSuspended, claimed: claimsSuspend},
	{name: "Suspend", test: testSuspend, claimed: claimsSuspend},
	{name: "Hold", test: testHold, claimed: claimsHold},
	{name: "HoldRunning", test: testHoldRunning, claimed: claimsHold},
	{name: "RestartWhileRunning", test: testRestartRunning},
	{name: "RestartAfterEnd", test: testRestartEnded},
	{name: "EndWhileAway", test: testEndWhileAway},
	{name: "CrashWhileQueued", test: testCrashQueued},
	{name: "Output", test: testOutput},
	{name: "OutputWhileHanging", test: testOutputHanging},
	{name: "Forget", test: testForget},
	{name: "Capacity", test: testCapacity},
	{name: "Push", test: testPush, claimed: claimsPush},
	{name: "Resources", test: testSiteResources},
	{name: "Health", test: testHealth},
	{name: "Many", test: testMany},
	{name: "FiveThousand", test: testFiveThousand},
	{name: "Alike", test: testAlike, claimed: claimsBulk},
	{name: "Coalesced", test: testCoalesced},
	{name: "Budget", test: testBudget},
	{name: "OldHandles", test: testOldHandles},
	{name: "Faults/Down", test: testDown},
	{name: "Faults/ControllerKilled", test: testControllerKilled},
	{name: "Faults/AnswerLost", test: testAnswerLost},
	{name: "Faults/SubmissionLost", test: testSubmissionLost},
	{name: "Faults/ReuseIDs", test: testReuseIDs},
	{name: "Times", test: testTimes},
	{name: "Lease/Ends", test: testLeaseEnds, claimed: claimsLease},
	{name: "Lease/NeverStarts", test: testLeaseNeverStarts, claimed: claimsLease},
	{name: "Lease/Extend", test: testLeaseExtend, claimed: claimsLease},
	{name: "Reserve/Made", test: testReserve, claimed: claimsReserve},
	{name: "Reserve/Runs", test: testReserveRuns, claimed: claimsReserve},
	{name: "Reserve/Ends", test: testReserveEnds, claimed: claimsReserve},
	{name: "Reserve/Refused", test: testReserveRefused, claimed: claimsReserve},
	{name: "Reserve/AnswerLost", test: testReserveLost, claimed: claimsReserve},
	{name: "Reserve/Down", test: testReserveDown, claimed: claimsReserve},
	{name: "Reserve/None", test: testReserveNone},
	{name: "TimeOut", test: testTimeOut},
	{name: "Placement", test: testPlacement, details: placementNames},
	{name: "Strings", test: testStrings, details: nastyNames()},
	{name: "Programs/Arguments", test: testArguments, details: nastyNames()},
	{name: "Programs/Environment", test: testEnvironment, details: nastyNames()},
	{name: "Programs/CleanEnvironment", test: testCleanEnvironment},
	{name: "Programs/HugeEnvironment", test: testHugeEnvironment},
	{name: "Programs/Lookup", test: testLookup},
	{name: "Programs/NotRunnable", test: testNotRunnable},
	{name: "Programs/HPC", test: testHPC},
	{name: "Programs/JobName", test: testJobName, details: nastyNames()},
	{name: "Programs/FileNames", test: testFileNames, details: nastyNames()},
	{name: "Programs/WorkingDirectory", test: testWorkingDirectory},
	{name: "Programs/BadWorkingDirectory", test: testBadWorkingDirectory},
	{name: "Programs/FileSystems", test: testFileSystems},
	{name: "Programs/Stdin", test: testStdin},
	{name: "Programs/Files", test: testFiles},
	{name: "Programs/OneFile", test: testOneFile},
	{name: "Programs/BadFiles", test: testBadFiles},
	{name: "Programs/Nul", test: testNul},
	{name: "Programs/Umask", test: testUmask},
	{name: "Programs/Accounts", test: testAccounts},
	{name: "Programs/Resources", test: testResources, details: resourceNames},
	{name: "Programs/Limits", test: testLimits, details: limitNames()},
	{name: "Programs/MemoryKill", test: testMemoryKill},
	{name: "Programs/Account", test: testAccount},
	{name: "Programs/SPMD", test: testSPMD},
	{name: "Programs/Tree", test: testTree},
	{name: "Programs/TreeAfterExit", test: testTreeAfterExit},
	{name: "Programs/SuspendStops", test: testSuspendStops, claimed: claimsSuspend},
	{name: "Programs/CancelStubborn", test: testCancelStubborn},
	{name: "Programs/OutputWhileRunning", test: testOutputRunning},
}

func claimsSuspend(p adapters.Properties) bool { return p.Suspend }
func claimsHold(p adapters.Properties) bool    { return p.Hold }
func claimsBulk(p adapters.Properties) bool    { return p.Bulk }
func claimsPush(p adapters.Properties) bool    { return p.Push }

// groups are the names that stand for several parts.
func groups() []string {
	var g []string
	for _, p := range parts {
		if group, _, ok := strings.Cut(p.name, "/"); ok && !slices.Contains(g, group) {
			g = append(g, group)
		}
	}
	return g
}

// names says which entry of Lacks names nothing.
func (h *Harness) names() error {
	for name, why := range h.Lacks {
		known := slices.Contains(groups(), name)
		for _, p := range parts {
			if name == p.name {
				known = true
			}
			if detail, ok := strings.CutPrefix(name, p.name+"/"); ok && slices.Contains(p.details, detail) {
				known = true
			}
		}
		if !known {
			return fmt.Errorf("Harness.Lacks[%q] names no part, group or detail of the suite: see adaptertest/parts.go for the names", name)
		}
		if strings.TrimSpace(why) == "" {
			return fmt.Errorf("Harness.Lacks[%q] must say why the manager lacks it, in a sentence", name)
		}
	}
	return nil
}

// lack gives the sentence why the name, or what it belongs to, is lacking.
func (h *Harness) lack(name string) (why string, lacks bool) {
	for {
		if why, ok := h.Lacks[name]; ok {
			return why, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return "", false
		}
		name = name[:i]
	}
}

// run makes a site for the part and judges it.
func (p part) run(t testing.TB, h *Harness) {
	t.Helper()
	why, lacks := h.lack(p.name)
	if lacks && p.claimed == nil {
		t.Skipf("skipped: %s", why)
	}
	if strings.HasPrefix(p.name, "Programs/") && !h.Programs {
		t.Skip("skipped: the adapter's jobs are no programs of this machine")
	}
	b := &bench{TB: t, name: p.name, world: &world{h: h, site: h.Site(t)}}
	b.open()
	t.Cleanup(b.close)
	if p.claimed != nil {
		switch claims := p.claimed(b.a.Properties()); {
		case claims && lacks:
			t.Fatalf("Harness.Lacks says %q of %s, but Properties claims it: take one of them back", why, p.name)
		case lacks:
			t.Skipf("skipped: %s", why)
		case !claims:
			t.Skip("skipped: the adapter does not claim this ability in Properties")
		}
	}
	p.test(b)
}

// setSecret is for testCleanEnvironment; t.Setenv allows nothing to be parallel.
func setSecret(t testing.TB) {
	t.Helper()
	if err := os.Setenv(secret, "secret"); err != nil { //nolint:usetesting // see above
		t.Fatal(err)
	}
}
