package boinctest

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What the reference says of the server beyond the recordings.

func model(t *testing.T, change func(*Config)) *world {
	w := &world{t: t, now: time.Unix(1_800_000_000, 0)}
	c := Standard()
	c.URL, c.Now = "http://boinc.example.org/gw/", func() time.Time { return w.now }
	c.Users = append(c.Users,
		User{ID: 2, Name: "other", Authenticator: otherKey, Submit: true, SubmitAll: true},
		User{ID: 3, Name: "stranger", Authenticator: strangerKey},
		User{ID: 4, Name: "limited", Authenticator: limitedKey, Submit: true, Apps: []string{"shell"}},
	)
	c.Users[0].Authenticator, c.Users[0].PasswdHash = scientistKey, hexMD5("pw"+"gateway@example.org")
	in := "<input_template><file_info><no_delete/></file_info><workunit><file_ref><open_name>job.sh</open_name><copy_file/></file_ref></workunit></input_template>"
	out := "<output_template><result><file_ref><open_name>stdout</open_name></file_ref></result></output_template>"
	c.Apps = append(c.Apps, App{ID: 2, Name: "shell", InputTemplate: in, OutputTemplate: out, Versions: c.Apps[0].Versions, Program: Program{Kind: "shell"}})
	if change != nil {
		change(&c)
	}
	p, err := Open(t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	w.p = p
	return w
}

func (w *world) get(target string) string {
	rec := httptest.NewRecorder()
	w.p.ServeHTTP(rec, httptest.NewRequest("GET", "/gw/"+target, nil))
	return rec.Body.String()
}

func (w *world) expect(document, want string) {
	w.t.Helper()
	document = strings.NewReplacer("KEY", "<authenticator>"+scientistKey+"</authenticator>", "OTHER", "<authenticator>"+otherKey+"</authenticator>",
		"STRANGER", "<authenticator>"+strangerKey+"</authenticator>", "LIMITED", "<authenticator>"+limitedKey+"</authenticator>").Replace(document)
	if got := w.post(document); !strings.Contains(got, want) {
		w.t.Errorf("%s gives\n%s\nwant %q", document, got, want)
	}
}

func message(s string) string { return "<error_msg>" + s + "</error_msg>" }

func TestErrors(t *testing.T) {
	w := model(t, nil)
	w.submit(scientistKey, "shell", "mine", "echo", "mine_0")
	job := "<job><name>x_0</name><input_file><mode>inline</mode><source>x</source></input_file></job>"
	for _, c := range [][2]string{
		{"<ping></ping>", "can't parse request message: &lt;ping&gt;&lt;/ping&gt;"},
		{"<ping><x/></ping>", "<success>1</success>"},
		{"<make_coffee>KEY</make_coffee>", message("bad command")},
		{"<query_batches><x/></query_batches>", message("no authenticator")},
		{"<query_batches><authenticator>nobody</authenticator></query_batches>", message("bad authenticator")},
		{"<query_batches>STRANGER</query_batches>", message("no file access")},
		{"<submit_batch>STRANGER<batch><app_name>shell</app_name>" + job + "</batch></submit_batch>", message("no submit access")},
		{"<submit_batch>LIMITED<batch><app_name>run</app_name>" + job + "</batch></submit_batch>", message("no submit access")},
		{"<submit_batch>LIMITED<batch><app_name>shell</app_name>" + strings.ReplaceAll(job, "x_0", "y_0") + "</batch></submit_batch>", "<batch_id>2</batch_id>"},
		{"<create_batch><x/><app_name>none</app_name></create_batch>", message("app not found: none")}, // before the authenticator
		{"<get_templates>KEY<app_name>run</app_name></get_templates>", message("template file missing")},
		{"<get_templates>KEY<app_name>none</app_name></get_templates>", message("app not found: none")},
		{"<get_templates>KEY<job_name>none</job_name></get_templates>", message("job not found: none")},
		{"<get_templates>KEY<job_name>mine_0</job_name></get_templates>", "<open_name>job.sh</open_name>"},
		{"<query_batch>KEY</query_batch>", message("batch not specified")},
		{"<query_batch2>KEY<batch_name>mine</batch_name><batch_name>none</batch_name></query_batch2>", message("no batch named none")},
		{"<query_batch2>OTHER<batch_name>mine</batch_name></query_batch2>", message("not owner of mine")},
		{"<retire_batch>OTHER<batch_id>1</batch_id></retire_batch>", message("not owner")},
		{"<query_completed_job>KEY<job_name>none</job_name></query_completed_job>", message("no such job")},
		{"<submit_batch>KEY<batch><app_name>shell</app_name><job><name>z_0</name></job></batch></submit_batch>", message("wrong # of input files for job 0: need 1, got 0")},
		{"<submit_batch>KEY<batch><app_name>shell</app_name><job><name>a b</name><input_file><mode>inline</mode><source>x</source></input_file></job></batch></submit_batch>", "can't open /srv/boinc/projects/gw/download/" + fanout("b") + "/b\n"},
		{"<submit_batch>KEY<batch><app_name>shell</app_name><job><name>a'b</name><input_file><mode>inline</mode><source>x</source></input_file></job></batch></submit_batch>", "You have an error in your SQL syntax"},
		{"<estimate_batch>KEY<batch><app_name>shell</app_name><job><rsc_fpops_est>2e10</rsc_fpops_est></job></batch></estimate_batch>", "<seconds>20</seconds>"},
	} {
		w.expect(c[0], c[1])
	}
	w.p.Change(func(c *Config) { c.WebStopped = true })
	w.expect("<ping><x/></ping>", "<error_num>-183</error_num>")
	w.p.Change(func(c *Config) { c.WebStopped = false })
	w.p.Inject(Fault{Operation: "ping", NoDatabase: true})
	w.expect("<ping><x/></ping>", "<error_num>-138</error_num>")
	for _, c := range [][2]string{
		{"lookup_account.php?email_addr=nobody&passwd_hash=x", "<error_num>-136</error_num>"},
		{"lookup_account.php?email_addr=gateway@example.org&passwd_hash=x", "<error_num>-206</error_num>"},
		{"lookup_account.php?email_addr=GATEWAY@example.org&passwd_hash=" + hexMD5("pwgateway@example.org"), "<authenticator>" + scientistKey},
		{"get_output.php?cmd=result_file&result_name=none&file_num=0&auth_str=x", "ERROR: no result none"},
		{"get_output.php?cmd=result_file&auth_str=x", "missing or bad parameter: result_name"},
		{"get_output.php?cmd=workunit_file&wu_name=mine_0&file_num=0&auth_str=x", "ERROR: bad authenticator"},
		{"get_output2.php?cmd=file&result_id=1&file_num=0&auth=" + otherKey, "bad authenticator"},
	} {
		if got := w.get(c[0]); !strings.Contains(got, c[1]) {
			t.Errorf("%s gives %q, want %q", c[0], got, c[1])
		}
	}
}

// Retries and redundancy: the reference's §10, by what each bound does.
func TestBounds(t *testing.T) {
	limits := func(quorum, target, errors, total, success int) string {
		return fmt.Sprintf("<min_quorum>%d</min_quorum><target_nresults>%d</target_nresults><max_error_results>%d</max_error_results><max_total_results>%d</max_total_results><max_success_results>%d</max_success_results>",
			quorum, target, errors, total, success)
	}
	for name, c := range map[string]struct {
		limits  string
		reports []string // each instance in turn: ok:CONTENT, fail, vanish
		mask    int
		winner  string // the instance that becomes canonical
		made    int
	}{
		"one is enough":                 {limits(1, 1, 1, 1, 1), []string{"ok:x"}, 0, "_0", 1},
		"a failure is the total":        {limits(1, 1, 1, 1, 1), []string{"fail"}, ErrorTooManyTotal, "", 1},
		"too many errors":               {limits(1, 1, 1, 5, 1), []string{"fail", "fail"}, ErrorTooManyErrors, "", 2},
		"retried":                       {limits(1, 1, 3, 3, 1), []string{"fail", "vanish", "ok:x"}, 0, "_2", 3},
		"three times":                   {limits(1, 1, 3, 3, 1), []string{"fail", "fail", "fail"}, ErrorTooManyTotal, "", 3},
		"lost ones are no errors":       {limits(1, 1, 0, 3, 1), []string{"vanish", "vanish", "vanish"}, ErrorTooManyTotal, "", 3},
		"two agree":                     {limits(2, 2, 2, 4, 3), []string{"ok:x", "ok:x"}, 0, "_0", 2},
		"a third decides":               {limits(2, 2, 2, 4, 3), []string{"ok:wrong", "ok:x", "ok:x"}, 0, "_1", 3},
		"successes that do not agree":   {limits(2, 2, 2, 9, 3), []string{"ok:a", "ok:b", "ok:c", "ok:d"}, ErrorTooManySuccesses, "", 4},
		"no more instances to be had":   {limits(2, 2, 2, 2, 2), []string{"ok:a", "ok:b"}, ErrorTooManyTotal, "", 2},
		"one that is not needed unsent": {limits(1, 2, 1, 2, 2), []string{"ok:x"}, 0, "_0", 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := model(t, nil)
			w.expect(`<submit_batch>KEY<batch><app_name>run</app_name><batch_name>b</batch_name><job><name>j</name><input_template><workunit>`+c.limits+`<delay_bound>10</delay_bound></workunit></input_template>
				<output_template><file_info><name><OUTFILE_0/></name></file_info><result><file_ref><file_name><OUTFILE_0/></file_name><open_name>o</open_name></file_ref></result></output_template></job></batch></submit_batch>`, "<batch_id>1</batch_id>")
			for i, how := range c.reports {
				name := fmt.Sprintf("j_%d", i)
				w.send(name)
				content, ok := strings.CutPrefix(how, "ok:")
				switch {
				case ok:
					w.report(Report{Result: name, Files: files(content)})
				case how == "fail":
					w.report(Report{Result: name, ExitStatus: 1, ClientState: ClientComputeError})
				default:
					w.now = w.now.Add(11 * time.Second)
					w.p.Tick()
				}
			}
			wu := w.p.Workunits()[0]
			results := w.p.Results()
			winner := ""
			for _, r := range results {
				if r.ID == wu.Canonical {
					winner = strings.TrimPrefix(r.Name, "j")
				}
			}
			if wu.ErrorMask != c.mask || winner != c.winner || len(results) != c.made {
				t.Errorf("errors %d, canonical %q, %d instances; want %d, %q, %d", wu.ErrorMask, winner, len(results), c.mask, c.winner, c.made)
			}
		})
	}
}

// A project that is started again knows what it knew, but for a transaction that the
// end of its process cut off.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	w, err := Start(dir, Standard())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	x := &world{t: t, p: w.Project()}
	x.post(`<submit_batch><authenticator>` + Key + `</authenticator><batch><app_name>run</app_name><batch_name>b</batch_name><job><name>j</name><input_template><workunit></workunit></input_template><output_template><result></result></output_template></job></batch></submit_batch>`)
	if _, err := x.p.Contact(Contact{Host: Host{ID: 5, Platform: Linux}, Want: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := x.p.journal.WriteString(`{"Batches":[{"ID":9`); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(); err != nil {
		t.Fatal(err)
	}
	p := w.Project()
	if b, r := p.Batches(), p.Results(); len(b) != 1 || len(r) != 1 || r[0].ServerState != ServerInProgress || r[0].Host != 5 {
		t.Fatalf("after a restart there are %+v and %+v", b, r)
	}
	// The host did not hear the answer: it is sent the same again.
	a, err := p.Contact(Contact{Host: Host{ID: 5, Platform: Linux}, Want: 1})
	if err != nil || len(a.Work) != 1 || a.Work[0].Result != "j_0" {
		t.Errorf("a host that lost an answer is sent %+v, %v", a, err)
	}
}
