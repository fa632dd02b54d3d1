package boinctest

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// field reads a value out of a recording, to seed the double with.
type seed struct {
	t    *testing.T
	text string
}

func (s seed) str(name string) string {
	s.t.Helper()
	_, rest, ok := strings.Cut(s.text, "<"+name+">")
	value, _, end := strings.Cut(rest, "</"+name+">")
	if !ok || !end {
		s.t.Fatalf("the recording has no %s", name)
	}
	return value
}

func (s seed) float(name string) float64 {
	f, err := strconv.ParseFloat(s.str(name), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s seed) int(name string) int { return int(s.float(name)) }

// recordedClient is the client of the recordings, as it stood at their beginning.
func recordedClient(t *testing.T, dir string) *Client {
	r := seed{t, read(t, dir, "gui_rpc/01-get_results-unauthorized.reply.xml")}
	p := seed{t, read(t, dir, "gui_rpc/10-get_project_status.reply.xml")}
	nonces := []string{
		seed{t, read(t, dir, "gui_rpc/03-auth1.reply.xml")}.str("nonce"),
		seed{t, read(t, dir, "gui_rpc/05-auth1.reply.xml")}.str("nonce"),
	}
	return &Client{
		Version: [3]int{7, 20, 5}, Password: password,
		Nonce: func() string {
			n := nonces[0]
			nonces = append(nonces[1:], n)
			return n
		},
		Projects: []ClientProject{{
			URL: p.str("master_url"), Name: p.str("project_name"), UserName: p.str("user_name"), EmailHash: p.str("email_hash"),
			CrossProjectID: p.str("cross_project_id"), ExternalCPID: p.str("external_cpid"), CPIDTime: p.float("cpid_time"),
			UserCredit: p.float("user_total_credit"), UserAvgCredit: p.float("user_expavg_credit"), UserCreated: p.float("user_create_time"),
			RPCSeqno: p.int("rpc_seqno"), UserID: p.int("userid"), HostID: p.int("hostid"), HostCredit: p.float("host_total_credit"),
			HostAvgCredit: p.float("host_expavg_credit"), HostCreated: p.float("host_create_time"), NextRPC: p.float("next_rpc_time"),
			REC: p.float("rec"), RECTime: p.float("rec_time"), ResourceShare: p.float("resource_share"), DiskUsage: p.float("disk_usage"),
			DiskShare: p.float("disk_share"), RPCPending: p.int("sched_rpc_pending"), Success: p.int("njobs_success"), Errors: p.int("njobs_error"),
			Elapsed: p.float("elapsed_time"), LastRPC: p.float("last_rpc_time"), RPCInProgress: true, SchedPriority: p.float("sched_priority"),
			Dir: p.str("project_dir"),
		}},
		Tasks: []*ClientTask{{
			Name: r.str("name"), Workunit: r.str("wu_name"), Platform: r.str("platform"), ProjectURL: r.str("project_url"), Version: r.int("version_num"),
			State: r.int("state"), Deadline: r.float("report_deadline"), Received: r.float("received_time"), Remaining: r.float("estimated_cpu_time_remaining"),
			Active: true, ActiveState: 1, Scheduler: 2, PID: r.int("pid"), Fraction: r.float("fraction_done"), Elapsed: r.float("elapsed_time"),
			Swap: r.float("swap_size"), Working: r.float("working_set_size"), Smoothed: r.float("working_set_size_smoothed"), ProgressRate: r.float("progress_rate"),
		}},
	}
}

// TestReplayGUI drives the client's double through the recorded exchanges of the
// control port, over TCP. Replies are equal byte by byte.
func TestReplayGUI(t *testing.T) {
	dir, list := index(t)
	c := recordedClient(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Serve(l)
	}()
	var conn net.Conn
	dial := func() {
		if conn != nil {
			_ = conn.Close()
		}
		if conn, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	dial()
	defer func() { _ = conn.Close(); _ = l.Close(); <-done }()
	compared := 0
	for _, x := range list {
		if x.method != "TCP" {
			continue
		}
		if x.number == 16 { // the task went on until it was suspended
			s := seed{t, read(t, dir, x.file+".reply.xml")}
			c.Change(func() {
				task := c.Tasks[0]
				task.Remaining, task.Fraction, task.Elapsed = s.float("estimated_cpu_time_remaining"), s.float("fraction_done"), s.float("elapsed_time")
				task.Smoothed, task.ProgressRate = s.float("working_set_size_smoothed"), s.float("progress_rate")
			})
		}
		nonce := ""
		if x.number == 4 || x.number == 6 {
			nonce = seed{t, read(t, dir, map[int]string{4: "gui_rpc/03", 6: "gui_rpc/05"}[x.number]+"-auth1.reply.xml")}.str("nonce")
		}
		request := strings.NewReplacer("{{MD5(nonce+password)}}", hexMD5(nonce+password), "{{MD5(nonce+wrong)}}", hexMD5(nonce+"wrong")).Replace(read(t, dir, x.file+".request.xml"))
		if _, err := conn.Write([]byte(request + "\x03")); err != nil {
			t.Fatal(err)
		}
		got := readReply(t, conn)
		if want := read(t, dir, x.file+".reply.xml"); strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s:\n--- have\n%s\n--- recorded\n%s", x.file, got, want)
		}
		compared++
		if x.number == 4 { // the client closes the connection after a wrong password
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the connection is open after a wrong password")
			}
			dial()
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
	t.Logf("%d exchanges answered as recorded", compared)
}

func readReply(t *testing.T, conn net.Conn) string {
	t.Helper()
	var b strings.Builder
	one := make([]byte, 4096)
	for {
		n, err := conn.Read(one)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(one[:n])
		if s := b.String(); strings.HasSuffix(s, "\x03") {
			return strings.TrimSuffix(s, "\x03")
		}
	}
}
