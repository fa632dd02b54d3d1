package boinc_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// The traps of real servers that the reference names, one test each.

// §2: PHP's messages before, inside and after the XML of nearly every reply.
func TestTrapHTMLInReplies(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.DisplayErrors = true
	s := start(t, config, host())
	a := s.gateway(t, "")
	h := place(t, a, "noisy-1", sh("echo hello; exit 3"))
	exits(t, a, h, 3)
	if out := output(t, a, h, adapters.Stdout); out != "hello\n" {
		t.Errorf("the output is %q", out)
	}
	hang := place(t, a, "noisy-2", sh("sleep 1000"))
	if errs := a.Cancel(t.Context(), []adapters.Handle{hang}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if e := end(t, a, hang); e.Phase != adapters.Cancelled {
		t.Errorf("a cancelled job is %v", e.Phase)
	}
	if found, err := a.Find(t.Context(), []adapters.Tag{"noisy-1", "never"}); err != nil || len(found) != 1 {
		t.Errorf("Find gives %v, %v", found, err)
	}
	if err := a.Forget(t.Context(), h); err != nil {
		t.Error(err)
	}
}

// §2: a fatal error comes with status 200 where PHP's messages are shown, else with
// 500 and a document that is cut off. Neither says that nothing was done.
func TestTrapFatalErrors(t *testing.T) {
	t.Parallel()
	for _, shown := range []bool{true, false} {
		config := boinctest.Standard()
		config.DisplayErrors = shown
		s := start(t, config, host())
		a := s.gateway(t, "")
		s.Project().Inject(boinctest.Fault{Operation: "submit_batch", Midway: true})
		_, err := submit(t, a, "fatal", sh("exit 4"))
		if !fail.Is(err, fail.Uncertain) {
			t.Fatalf("with messages shown %v a fatal error gives %v, want Uncertain", shown, err)
		}
		found := map[adapters.Tag]adapters.Handle{"": nil}
		eventually(t, "Find to answer", func() bool { found, err = a.Find(t.Context(), []adapters.Tag{"fatal"}); return err == nil })
		if len(found) != 0 {
			t.Errorf("Find gives %v of a job that was not placed", found)
		}
		if orphans := s.batchesIn(boinctest.BatchInit); len(orphans) != 0 {
			t.Errorf("the orphan batches %q are left behind", orphans)
		}
		h := place(t, a, "fatal", sh("exit 4"))
		s.Project().Inject(boinctest.Fault{Operation: "query_batch", NoDatabase: true, Times: 2})
		s.Project().Inject(boinctest.Fault{Operation: "query_batch2", Truncate: 40, Times: 2})
		eventually(t, "the end", func() bool { // through the faults
			list, err := a.Status(t.Context(), []adapters.Handle{h})
			return err == nil && list[0].Phase.Final()
		})
		exits(t, a, h, 4)
		if n := s.Starts(jobName("fatal")); n != 1 {
			t.Errorf("the job was started %d times", n)
		}
	}
}

// §11: submit_batch is not atomic; jobs may exist although the batch's state says not.
func TestTrapStateChangeLost(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	a := s.gateway(t, "")
	s.Project().Inject(boinctest.Fault{Operation: "submit_batch", StateLost: true})
	_, err := submit(t, a, "half", sh("exit 5"))
	if !fail.Is(err, fail.Uncertain) {
		t.Fatalf("Submit gives %v, want Uncertain", err)
	}
	h := place(t, a, "half", sh("exit 5")) // adopts what is there
	exits(t, a, h, 5)
	if n := s.Starts(jobName("half")); n != 1 {
		t.Errorf("the job was started %d times", n)
	}
}

// §11: an empty batch stays behind a lost answer to create_batch, and is swept.
func TestTrapOrphanBatches(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	first := s.open(t, "")
	s.Project().Inject(boinctest.Fault{Operation: "create_batch", Cut: true})
	if _, err := submit(t, first, "orphan", sh("exit 0")); adapters.ClassOf(err) != adapters.Transient {
		t.Fatalf("a lost create_batch gives %v, want a transient error: no job can have got in", err)
	}
	if n := len(s.batchesIn(boinctest.BatchInit)); n != 1 {
		t.Fatalf("%d orphans are there, want 1", n)
	}
	exits(t, first, place(t, first, "orphan", sh("exit 0")), 0)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	s.Project().Heal()
	eventually(t, "the orphan to be retired", func() bool {
		a := s.open(t, "") // looks in its first round
		defer a.Close()
		h, err := submit(t, a, adapters.Tag(fmt.Sprintf("sweep-%d", time.Now().UnixNano())), sh("exit 0"))
		if err != nil {
			t.Fatal(err)
		}
		end(t, a, h)
		return len(s.batchesIn(boinctest.BatchInit)) == 0
	})
}

// §11: a job's name is used once in a project, for ever; the batch of a submission
// that failed for it is no orphan.
func TestTrapDuplicateNames(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	a := s.gateway(t, "")
	h := place(t, a, "used", sh("exit 1"))
	exits(t, a, h, 1)
	if err := a.Forget(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	p := a.Submit(t.Context(), []adapters.Job{
		{Tag: "fresh", Definition: sh("exit 2")}, {Tag: "used", Definition: sh("exit 1")}, {Tag: "other", Definition: sh("exit 3")},
	})
	if !fail.Is(p[1].Err, fail.Conflict) {
		t.Errorf("a tag of a forgotten job gives %v, want a conflict", p[1].Err)
	}
	if p[0].Err != nil || p[2].Err != nil {
		t.Fatalf("its neighbours are not placed: %v, %v", p[0].Err, p[2].Err)
	}
	exits(t, a, p[0].Handle, 2)
	exits(t, a, p[2].Handle, 3)
	if n := s.Starts(jobName("used")); n != 1 {
		t.Errorf("the job was started %d times", n)
	}
	if orphans := s.batchesIn(boinctest.BatchInit); len(orphans) != 0 {
		t.Errorf("the orphan batches %q are left behind", orphans)
	}
}

// The memory of the gateway is lost: names at the project are enough.
func TestTrapMemoryLost(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	first := s.open(t, "")
	ended := place(t, first, "ended", sh("echo out; exit 6"))
	exits(t, first, ended, 6)
	runs := place(t, first, "runs", sh("sleep 1000"))
	until(t, first, runs, "the start", func(e adapters.Evidence) bool { return e.Phase == adapters.Running })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// §12: names of batches stand unescaped in replies, also those of others.
	s.create(t, "R&D <x>")
	s.create(t, `portolan_q"uote`)
	s.dir = t.TempDir()
	a := s.gateway(t, "")
	found, err := a.Find(t.Context(), []adapters.Tag{"ended", "runs", "never"})
	if err != nil || len(found) != 2 || !bytes.Equal(found["ended"], ended) || !bytes.Equal(found["runs"], runs) {
		t.Fatalf("Find gives %q, %v; want %q and %q", found, err, ended, runs)
	}
	exits(t, a, ended, 6)
	if out := output(t, a, ended, adapters.Stdout); out != "out\n" {
		t.Errorf("the output is %q", out)
	}
	if errs := a.Cancel(t.Context(), []adapters.Handle{runs}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if e := end(t, a, runs); e.Phase != adapters.Cancelled {
		t.Errorf("the cancelled job is %v", e.Phase)
	}
	again, err := submit(t, a, "ended", sh("echo out; exit 6"))
	if err != nil || !bytes.Equal(again, ended) {
		t.Errorf("placing it again gives %q, %v", again, err)
	}
}

// create makes an empty batch by hand.
func (s *site) create(t *testing.T, name string) {
	t.Helper()
	res, err := http.PostForm(s.URL+"submit_rpc_handler.php", map[string][]string{"request": {
		"<create_batch><authenticator>" + s.Key + "</authenticator><app_name>run</app_name><batch_name>" + strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(name) + "</batch_name></create_batch>",
	}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// §13: an application without a version for any host: its jobs wait for ever and fill
// the project's job cache, so that others are not sent either.
func TestTrapUnsendableJobs(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.Apps[0].Versions = nil
	config.Apps = append(config.Apps, boinctest.App{
		ID: 2, Name: "good", OutputTemplate: "<result></result>", InputTemplate: "<workunit></workunit>",
		Versions: []boinctest.AppVersion{{Number: 100, Platform: boinctest.Linux}},
		Program:  boinctest.Program{Go: func(string, []string) (int, string) { return 0, "" }},
	})
	config.FeederSlots = 10
	s := start(t, config, host())
	a := s.gateway(t, "unproven: 8\npending: 1s\napplications: [{name: good}]")
	jobs := make([]adapters.Job, 20)
	for i := range jobs {
		jobs[i] = adapters.Job{Tag: adapters.Tag(fmt.Sprintf("stuck-%d", i)), Definition: sh("exit 0")}
	}
	taken := 0
	var h adapters.Handle
	for _, p := range a.Submit(t.Context(), jobs) {
		switch {
		case p.Err == nil:
			taken++
			h = p.Handle
		case !fail.Is(p.Err, fail.NotAccepting):
			t.Fatalf("a job too many gives %v", p.Err)
		}
	}
	if taken != 8 {
		t.Errorf("%d jobs of an application that no host has run yet are taken, want 8", taken)
	}
	if r := fmt.Sprint(a.Health().Remarks); !strings.Contains(r, `no host has taken any of 8 jobs of the application "run"`) {
		t.Errorf("Health does not say so: %s", r)
	}
	name := "good"
	other := &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{Name: &name}}}
	exits(t, a, place(t, a, "others-go-on", other), 0)
	// The gateway's own limit ends what nobody runs.
	e := end(t, a, h)
	if e.Phase != adapters.Stopped || !e.NotRun || !strings.Contains(e.Reason, "no host took the job within 1s") {
		t.Errorf("a job that nobody can run ends as %v: %s", e.Phase, e.Reason)
	}
}

// §8: 195 stands for any failure of a wrapped program. Newer servers can't tell more;
// older ones show what the wrapper wrote.
func TestTrapStatus195(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		config := boinctest.Standard()
		config.Apps[0].Program = boinctest.Program{Go: func(string, []string) (int, string) { return 195, "app exit status: 0x3\n" }}
		s := start(t, config, host())
		a := s.gateway(t, "")
		if old {
			s.Project().Inject(boinctest.Fault{Operation: "query_completed_job", Replace: func([]byte) []byte {
				return []byte(`<?xml version="1.0" encoding="ISO-8859-1" ?><query_completed_job><completed_job><error_mask>8</error_mask><error_resultid>1</error_resultid>
					<exit_status>195</exit_status><stderr_out><![CDATA[
					&lt;stderr_txt&gt; wrapper: running x
					2026-11-22 02:13:55 (5898): app exit status: 0x3 &lt;/stderr_txt&gt; ]]></stderr_out></completed_job></query_completed_job>`)
			}})
			s.Project().Change(func(c *boinctest.Config) { c.DisplayErrors = true })
		}
		e := end(t, a, place(t, a, "wrapped", sh("exit 3")))
		if e.Phase != adapters.Stopped || e.ExitStatus != nil || !strings.Contains(e.Reason, "195") {
			t.Errorf("a failed instance gives %v with %q; it is no exit, as no result was found to be right", e.Phase, e.Reason)
		}
		if strings.Contains(e.Reason, "its own exit status was 3") != old {
			t.Errorf("old server %v: the reason is %q", old, e.Reason)
		}
	}
}

// §9: a time limit under two minutes is taken for a mistake, and twelve hours are
// allowed in its place: the project is told more, and the job's script keeps the limit.
func TestTrapShortTimeLimit(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	a := s.gateway(t, "benchmark: 1e9")
	for seconds, tag := range map[int64]adapters.Tag{1: "short", 100000: "long"} {
		d := sh("sleep 1000")
		if seconds > 10 {
			d = sh("exit 0")
		}
		d.Description.Application.POSIX.Limits.WallTime = big(seconds)
		h := place(t, a, tag, d)
		if w := s.workunit(t, tag); w.Limits.FpopsBound/1e9 < 120 || w.Limits.FpopsBound/1e9 < float64(seconds) {
			t.Errorf("a limit of %d s becomes one of %v s at the project", seconds, w.Limits.FpopsBound/1e9)
		}
		e := end(t, a, h)
		if seconds == 1 && (e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "WallTimeLimit")) {
			t.Errorf("a job over its limit is %v: %s", e.Phase, e.Reason)
		}
	}
}

// §12: quotes and line ends in a command line are options, file names or SQL.
func TestTrapUnescapedCommandLine(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	var seen atomic.Value
	config.Apps = append(config.Apps, boinctest.App{
		ID: 2, Name: "tool", OutputTemplate: "<result></result>", InputTemplate: "<workunit></workunit>",
		Versions: []boinctest.AppVersion{{Number: 100, Platform: boinctest.Linux}},
		Program:  boinctest.Program{Go: func(_ string, args []string) (int, string) { seen.Store(strings.Join(args, "|")); return 0, "" }},
	})
	s := start(t, config, host())
	a := s.gateway(t, "applications: [{name: tool, commandLine: '--mode fast'}]")
	name := "tool"
	with := func(args ...string) *jsdl.JobDefinition {
		p := &jsdl.POSIXApplication{}
		for _, v := range args {
			p.Arguments = append(p.Arguments, jsdl.Text{Value: v})
		}
		return &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{Name: &name, POSIX: p}}}
	}
	for _, bad := range []string{"'", `"`, "a b", "a\nb", "a;b", `a\`, "$HOME", "", "ä", "`id`", "--wu_name\tx"} {
		refused(t, a, with("ok", bad), "Argument")
	}
	refused(t, a, with(strings.Repeat("x", 5000)), "Argument")
	exits(t, a, place(t, a, "words", with("-n", "5", "a=b,c:d/e@f+g%h.i_j")), 0)
	if got := seen.Load(); got != "--mode|fast|-n|5|a=b,c:d/e@f+g%h.i_j" {
		t.Errorf("the program was given %q", got)
	}
}

// §7.3: a late success turns a job that had failed to done, whatever its bits say.
func TestTrapLateSuccess(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	s := start(t, config)
	a := s.gateway(t, "return: 1s")
	h := place(t, a, "late", sh("exit 0"))
	if err := s.Project().Send(7, jobName("late")+"_0"); err != nil {
		t.Fatal(err)
	}
	until(t, a, h, "the start", func(e adapters.Evidence) bool { return e.Phase == adapters.Running })
	// A query while the deadline passes must not make it a failure for good: here the
	// report comes before anybody asks again.
	s.Down(true)
	eventually(t, "the deadline to pass", func() bool { return s.workunit(t, "late").ErrorMask != 0 })
	if err := s.Project().Report(boinctest.Report{Result: jobName("late") + "_0", Files: map[int][]byte{
		0: []byte("late\n"), 1: nil, 2: []byte("portolan=1\nexit=9\nend\n"),
	}}); err != nil {
		t.Fatal(err)
	}
	s.Down(false)
	if w := s.workunit(t, "late"); w.Canonical == 0 || w.ErrorMask == 0 {
		t.Fatalf("the project says canonical %d, errors %d; the trap is both", w.Canonical, w.ErrorMask)
	}
	eventually(t, "the project to answer", func() bool {
		list, err := a.Status(t.Context(), []adapters.Handle{h})
		return err == nil && list[0].Err == nil
	})
	exits(t, a, h, 9)
}

// A volunteer's word is not trusted before the project found that others agree.
func TestTrapWrongResults(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.OneHostOnce = true
	liar := host()
	liar.Corrupt = func(string) bool { return true }
	s := start(t, config, liar, host(), host())
	a := s.gateway(t, "")
	d := sh("echo right; exit 3")
	q := 2
	d.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{Quorum: &q}}
	for i := range 5 {
		tag := adapters.Tag(fmt.Sprintf("quorum-%d", i))
		h := place(t, a, tag, d)
		until(t, a, h, "the end", func(e adapters.Evidence) bool {
			if e.Phase == adapters.Exited && s.workunit(t, tag).Canonical == 0 {
				t.Fatal("the job has exited before the project found a result to be right")
			}
			return e.Phase.Final()
		})
		exits(t, a, h, 3)
		if out := output(t, a, h, adapters.Stdout); out != "right\n" {
			t.Errorf("the output is %q", out)
		}
	}
}

// Hosts that never report, and jobs that may or may not be given to others then.
func TestTrapVanishedHosts(t *testing.T) {
	t.Parallel()
	gone := host()
	gone.Vanish = func(result string) bool { return strings.HasSuffix(result, "_0") }
	s := start(t, boinctest.Standard(), gone)
	a := s.gateway(t, "return: 1s")
	once := place(t, a, "once", sh("exit 2"))
	again := sh("exit 2")
	yes := true
	again.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{Rerunnable: &yes}}
	twice := place(t, a, "twice", again)
	exits(t, a, twice, 2)
	if e := end(t, a, once); e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "did not report by its deadline") {
		t.Errorf("a job whose host vanished is %v: %s", e.Phase, e.Reason)
	}
	if n := len(s.results(jobName("once"))); n != 1 {
		t.Errorf("a job that may not be run again had %d instances", n)
	}
}

// A host that breaks is no exit of the program, and its disk and time limits are told.
func TestTrapBrokenHosts(t *testing.T) {
	t.Parallel()
	for code, word := range map[int]string{196: "IndividualDiskSpace", 197: "time limit", 198: "memory", 206: "could not be started", -185: "could not be started", 99: "99"} {
		broken := host()
		broken.Break = func(string) int { return code }
		s := start(t, boinctest.Standard(), broken)
		a := s.gateway(t, "")
		if e := end(t, a, place(t, a, "broken", sh("exit 0"))); e.Phase != adapters.Stopped || e.ExitStatus != nil || !strings.Contains(e.Reason, word) {
			t.Errorf("exit status %d of an instance gives %v: %s", code, e.Phase, e.Reason)
		}
	}
}

// §6: outputs are where the application's assimilator leaves them.
func TestTrapCollectedOutputs(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.Apps[0].Collect = true
	s := start(t, config, host())
	a := s.gateway(t, "")
	var jobs []adapters.Job
	for i := range 12 {
		jobs = append(jobs, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("collected-%d", i)), Definition: sh(fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i))})
	}
	for i, p := range a.Submit(t.Context(), jobs) {
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		exits(t, a, p.Handle, i)
		if out, errs := output(t, a, p.Handle, adapters.Stdout), output(t, a, p.Handle, adapters.Stderr); out != fmt.Sprintf("out %d\n", i) || errs != fmt.Sprintf("err %d\n", i) {
			t.Errorf("the outputs of job %d are %q and %q", i, out, errs)
		}
	}
}

// §6: a project may delete outputs at once. What is not there is not made up.
func TestTrapDeletedOutputs(t *testing.T) {
	t.Parallel()
	config := boinctest.Standard()
	config.DeleteUploads = true
	s := start(t, config, host())
	a := s.gateway(t, "")
	if e := end(t, a, place(t, a, "deleted", sh("exit 0"))); e.Phase != adapters.Lost || !strings.Contains(e.Reason, "outputs are not there") {
		t.Errorf("a job whose outputs are gone is %v: %s", e.Phase, e.Reason)
	}
}

// §3.12: uploading what is there gives 500; files are asked for first and sent once.
func TestTrapUploads(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	a := s.gateway(t, "")
	exits(t, a, place(t, a, "first", sh("exit 1")), 1)
	exits(t, a, place(t, a, "second", sh("exit 1")), 1)
	if n := s.Requests()["upload_files"]; n != 1 {
		t.Errorf("one script was uploaded %d times", n)
	}
	// Somebody else uploads it between question and upload.
	s.Project().Inject(boinctest.Fault{Operation: "query_files", Replace: func([]byte) []byte {
		return []byte("<query_files><absent_files><file>0</file></absent_files></query_files>")
	}})
	exits(t, a, place(t, a, "third", sh("exit 1")), 1)
	// The answer to an upload is lost; it is not sent again.
	s.Project().Inject(boinctest.Fault{Operation: "upload_files", Cut: true})
	before := s.Requests()["upload_files"]
	exits(t, a, place(t, a, "fourth", sh("exit 2")), 2)
	if n := s.Requests()["upload_files"] - before; n != 1 {
		t.Errorf("a file whose upload was not answered was sent %d times", n)
	}
}

// The staff cancel jobs, and purge what is old.
func TestTrapStaff(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	a := s.gateway(t, "")
	h := place(t, a, "staff", sh("sleep 1000"))
	until(t, a, h, "the start", func(e adapters.Evidence) bool { return e.Phase == adapters.Running })
	s.post(t, "<abort_jobs><authenticator>"+s.Key+"</authenticator><job_name>"+jobName("staff")+"</job_name></abort_jobs>")
	if e := end(t, a, h); e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "cancelled the job") {
		t.Errorf("a job that others cancelled is %v: %s", e.Phase, e.Reason)
	}
	h = place(t, a, "purged", sh("sleep 1000"))
	until(t, a, h, "the start", func(e adapters.Evidence) bool { return e.Phase == adapters.Running })
	var id int64
	for _, b := range s.Project().Batches() {
		id = max(id, b.ID)
	}
	s.Project().Purge(id)
	if e := end(t, a, h); e.Phase != adapters.Lost || e.Reason == "" {
		t.Errorf("a job that was purged is %v: %s", e.Phase, e.Reason)
	}
}

func (s *site) post(t *testing.T, document string) {
	t.Helper()
	res, err := http.PostForm(s.URL+"submit_rpc_handler.php", map[string][]string{"request": {document}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// A wrong key, a closed project and a page in place of a reply are the site's trouble,
// not the job's end; and the key stands in no message.
func TestTrapSiteTrouble(t *testing.T) {
	t.Parallel()
	s := start(t, boinctest.Standard(), host())
	key, err := s.WriteKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	wrong := strings.Repeat("ab", 16)
	trouble := func(what string, prepare func(), heal func()) {
		prepare()
		parsed, err := adapters.ParseSettings(fmt.Sprintf(settings, s.URL, key, "50ms"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := boinc.Open(adapters.Config{Site: "x", Dir: t.TempDir(), Settings: parsed, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("%s: Open: %v", what, err)
		}
		defer a.Close()
		_, err = submit(t, a, adapters.Tag(what), sh("exit 0"))
		if c := adapters.ClassOf(err); c != adapters.Transient {
			t.Errorf("%s: Submit gives %v (class %d), want a transient error", what, err, c)
		}
		health := a.Health()
		if health.Problem == "" {
			t.Errorf("%s: Health tells no problem", what)
		}
		all := fmt.Sprint(err, health, log.String())
		if strings.Contains(all, s.Key) || strings.Contains(all, wrong) {
			t.Errorf("%s: the key is in %s", what, all)
		}
		heal()
	}
	trouble("wrong-key", func() {
		if err := os.WriteFile(key, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if _, err := s.WriteKey(); err != nil {
			t.Fatal(err)
		}
	})
	trouble("closed", func() { s.Project().Change(func(c *boinctest.Config) { c.WebStopped = true }) },
		func() { s.Project().Change(func(c *boinctest.Config) { c.WebStopped = false }) })
	trouble("page", func() {
		s.Project().Inject(boinctest.Fault{Times: -1, Status: 200, Body: "<html><body>It works!</body></html>"})
	}, s.Project().Heal)
	trouble("redirect", func() {
		s.Project().Inject(boinctest.Fault{Times: -1, Status: http.StatusFound})
	}, s.Project().Heal)
}

// The key goes nowhere but to the project.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	moved := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer moved.Close()
	key := t.TempDir() + "/key"
	if err := os.WriteFile(key, []byte(boinctest.Key), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := adapters.ParseSettings("url: " + moved.URL + "\nauthenticatorFile: " + key + "\nwrapper: run")
	if err != nil {
		t.Fatal(err)
	}
	a, err := boinc.Open(adapters.Config{Site: "x", Dir: t.TempDir(), Settings: parsed})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = submit(t, a, "moved", sh("exit 0"))
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if asked.Load() != 0 {
		t.Error("the key was sent to where a redirect pointed")
	}
}
