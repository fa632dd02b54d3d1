package boinctest

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
)

// Client is a volunteer's client program, as its control port (GUI RPC) shows it.
type Client struct {
	Version  [3]int
	Password string
	Nonce    func() string

	mu       sync.Mutex
	Projects []ClientProject
	Tasks    []*ClientTask
}

// ClientProject is a project that the client is attached to.
type ClientProject struct {
	URL, Name        string
	UserName         string
	EmailHash        string
	CrossProjectID   string
	ExternalCPID     string
	CPIDTime         float64
	UserCredit       float64
	UserAvgCredit    float64
	UserCreated      float64
	RPCSeqno         int
	UserID, HostID   int
	HostCredit       float64
	HostAvgCredit    float64
	HostCreated      float64
	NextRPC          float64
	REC, RECTime     float64
	ResourceShare    float64
	DiskUsage        float64
	DiskShare        float64
	RPCPending       int // sched_rpc_pending: 1 after a user asked
	Success, Errors  int
	Elapsed          float64
	LastRPC          float64
	RPCInProgress    bool
	SchedPriority    float64
	Dir              string
	UpdatesRequested int
}

// ClientTask is a task that the client holds.
type ClientTask struct {
	Name, Workunit, Platform string
	ProjectURL               string
	Version                  int
	ExitStatus, State        int
	Deadline, Received       float64
	Remaining                float64
	Suspended, Aborted       bool
	Active                   bool // it has a slot
	ActiveState, Scheduler   int
	Slot, PID                int
	Checkpoint, Fraction     float64
	CPU, Elapsed             float64
	Swap, Working, Smoothed  float64
	ProgressRate             float64
}

// Session is one connection to the control port.
type Session struct {
	c          *Client
	nonce      string
	authorized bool
	Closed     bool // by the client, after a wrong password
}

// Session begins one.
func (c *Client) Session() *Session { return &Session{c: c} }

// Change changes what the client shows, under its lock.
func (c *Client) Change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Do answers one request, both without the byte 0x03 that ends them on the wire.
func (s *Session) Do(request string) string {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	var b strings.Builder
	b.WriteString("<boinc_gui_rpc_reply>\n")
	s.answer(&b, request)
	b.WriteString("</boinc_gui_rpc_reply>\n")
	return b.String()
}

func (s *Session) answer(b *strings.Builder, request string) {
	_, inner, _ := strings.Cut(request, "<boinc_gui_rpc_request>")
	inner, _, _ = strings.Cut(inner, "</boinc_gui_rpc_request>")
	root, err := parseXML("<r>" + inner + "</r>")
	if err != nil || len(root.children) == 0 {
		b.WriteString("<error>unrecognized op: </error>\n")
		return
	}
	op := root.children[0]
	if s.login(b, op) {
		return
	}
	switch op.name {
	case "exchange_versions":
		fmt.Fprintf(b, "<server_version>\n   <major>%d</major>\n   <minor>%d</minor>\n   <release>%d</release>\n</server_version>\n", s.c.Version[0], s.c.Version[1], s.c.Version[2])
		return
	case "get_results":
		b.WriteString("<results>\n")
		for _, t := range s.c.Tasks {
			if op.num("active_only") == 0 || t.Active {
				t.write(b)
			}
		}
		b.WriteString("</results>\n")
		return
	case "get_project_status":
		b.WriteString("<projects>\n")
		for i := range s.c.Projects {
			s.c.Projects[i].write(b)
		}
		b.WriteString("</projects>\n")
		return
	case "get_cc_status":
		s.c.status(b)
		return
	case "get_file_transfers":
		b.WriteString("<file_transfers>\n</file_transfers>\n")
		return
	case "project_update", "suspend_result", "resume_result", "abort_result", "project_nomorework":
		if s.authorized {
			s.control(b, op)
		} else {
			b.WriteString("<unauthorized/>\n")
		}
		return
	}
	_, raw, _ := strings.Cut(inner, "<")
	raw, _, _ = strings.Cut(raw, ">")
	fmt.Fprintf(b, "<error>unrecognized op: %s</error>\n", raw)
}

// login answers the two steps of a login.
func (s *Session) login(b *strings.Builder, op *node) bool {
	switch op.name {
	case "auth1":
		s.nonce = s.c.Nonce()
		fmt.Fprintf(b, "<nonce>%s</nonce>\n", s.nonce)
	case "auth2":
		hash := strings.TrimSpace(op.str("nonce_hash"))
		if s.authorized = s.nonce != "" && hash == hexMD5(s.nonce+s.c.Password); s.authorized {
			b.WriteString("<authorized/>\n")
		} else {
			s.Closed = true
			b.WriteString("<unauthorized/>\n")
		}
		s.nonce = ""
	default:
		return false
	}
	return true
}

func (s *Session) control(b *strings.Builder, op *node) {
	url := strings.TrimSpace(op.str("project_url"))
	var project *ClientProject
	for i := range s.c.Projects {
		if s.c.Projects[i].URL == url {
			project = &s.c.Projects[i]
		}
	}
	if project == nil {
		b.WriteString("<error>no such project</error>\n")
		return
	}
	if strings.HasPrefix(op.name, "project_") {
		project.UpdatesRequested++
		project.RPCPending = 1
		b.WriteString("<success/>\n")
		return
	}
	name := strings.TrimSpace(op.str("name"))
	for _, t := range s.c.Tasks {
		if t.Name != name || t.ProjectURL != url {
			continue
		}
		switch op.name {
		case "suspend_result":
			t.Suspended, t.ActiveState, t.Scheduler = true, 9, 1
		case "resume_result":
			t.Suspended, t.ActiveState, t.Scheduler = false, 1, 2
		case "abort_result":
			t.Aborted, t.State, t.ExitStatus, t.Active = true, 6, 203, false
		}
		b.WriteString("<success/>\n")
		return
	}
	b.WriteString("<error>no such result</error>\n")
}

func (t *ClientTask) write(b *strings.Builder) {
	fmt.Fprintf(b, `<result>
    <name>%s</name>
    <wu_name>%s</wu_name>
    <platform>%s</platform>
    <version_num>%d</version_num>
    <plan_class></plan_class>
    <project_url>%s</project_url>
    <final_cpu_time>%f</final_cpu_time>
    <final_elapsed_time>%f</final_elapsed_time>
    <exit_status>%d</exit_status>
    <state>%d</state>
    <report_deadline>%f</report_deadline>
    <received_time>%f</received_time>
    <estimated_cpu_time_remaining>%f</estimated_cpu_time_remaining>
`, t.Name, t.Workunit, t.Platform, t.Version, t.ProjectURL, 0.0, 0.0, t.ExitStatus, t.State, t.Deadline, t.Received, t.Remaining)
	if t.Suspended {
		b.WriteString("    <suspended_via_gui/>\n")
	}
	if t.Active {
		fmt.Fprintf(b, `<active_task>
    <active_task_state>%d</active_task_state>
    <app_version_num>%d</app_version_num>
    <slot>%d</slot>
    <pid>%d</pid>
    <scheduler_state>%d</scheduler_state>
    <checkpoint_cpu_time>%f</checkpoint_cpu_time>
    <fraction_done>%f</fraction_done>
    <current_cpu_time>%f</current_cpu_time>
    <elapsed_time>%f</elapsed_time>
    <swap_size>%f</swap_size>
    <working_set_size>%f</working_set_size>
    <working_set_size_smoothed>%f</working_set_size_smoothed>
    <page_fault_rate>0.000000</page_fault_rate>
    <bytes_sent>0.000000</bytes_sent>
    <bytes_received>0.000000</bytes_received>
   <progress_rate>%f</progress_rate>
</active_task>
`, t.ActiveState, t.Version, t.Slot, t.PID, t.Scheduler, t.Checkpoint, t.Fraction, t.CPU, t.Elapsed, t.Swap, t.Working, t.Smoothed, t.ProgressRate)
	}
	b.WriteString("</result>\n")
}

func (p *ClientProject) write(b *strings.Builder) {
	element := func(name, format string, value any) {
		fmt.Fprintf(b, "    <%s>"+format+"</%s>\n", name, value, name)
	}
	b.WriteString("<project>\n")
	for _, e := range []struct {
		name  string
		value any
	}{
		{"master_url", p.URL},
		{"project_name", p.Name},
		{"symstore", ""},
		{"user_name", p.UserName},
		{"team_name", ""},
		{"host_venue", ""},
		{"email_hash", p.EmailHash},
		{"cross_project_id", p.CrossProjectID},
		{"external_cpid", p.ExternalCPID},
		{"cpid_time", p.CPIDTime},
		{"user_total_credit", p.UserCredit},
		{"user_expavg_credit", p.UserAvgCredit},
		{"user_create_time", p.UserCreated},
		{"rpc_seqno", p.RPCSeqno},
		{"userid", p.UserID},
		{"teamid", 0},
		{"hostid", p.HostID},
		{"host_total_credit", p.HostCredit},
		{"host_expavg_credit", p.HostAvgCredit},
		{"host_create_time", p.HostCreated},
		{"nrpc_failures", 0},
		{"master_fetch_failures", 0},
		{"min_rpc_time", 0.0},
		{"next_rpc_time", p.NextRPC},
		{"rec", p.REC},
		{"rec_time", p.RECTime},
		{"resource_share", p.ResourceShare},
		{"disk_usage", p.DiskUsage},
		{"disk_share", p.DiskShare},
		{"desired_disk_usage", 0.0},
		{"duration_correction_factor", 1.0},
		{"sched_rpc_pending", p.RPCPending},
		{"send_time_stats_log", 0},
		{"send_job_log", 0},
		{"njobs_success", p.Success},
		{"njobs_error", p.Errors},
		{"elapsed_time", p.Elapsed},
		{"last_rpc_time", p.LastRPC},
	} {
		switch e.value.(type) {
		case float64:
			element(e.name, "%f", e.value)
		default:
			element(e.name, "%v", e.value)
		}
	}
	b.WriteString("    <dont_use_dcf/>\n")
	if p.RPCInProgress {
		b.WriteString("   <scheduler_rpc_in_progress/>\n")
	}
	for _, kind := range []string{"rsc_backoff_time", "rsc_backoff_interval"} {
		fmt.Fprintf(b, "    <%s>\n        <name>CPU</name>\n        <value>%f</value>\n    </%s>\n", kind, 0.0, kind)
	}
	b.WriteString("<gui_urls>\n\n")
	for _, u := range [][3]string{
		{"Message boards", "Correspond with other users on the " + p.Name + " message boards", "forum_index.php"},
		{"Your account", "View your account information", "home.php"},
		{"Your tasks", "View the last week or so of computational work", fmt.Sprintf("results.php?userid=%d", p.UserID)},
	} {
		fmt.Fprintf(b, "    <gui_url>\n        <name>%s</name>\n        <description>%s</description>\n        <url>%s%s</url>\n    </gui_url>\n", u[0], u[1], p.URL, u[2])
	}
	b.WriteString("    \n</gui_urls>\n")
	element("sched_priority", "%f", p.SchedPriority)
	element("project_files_downloaded_time", "%f", 0.0)
	element("project_dir", "%s", p.Dir)
	b.WriteString("</project>\n")
}

func (c *Client) status(b *strings.Builder) {
	b.WriteString("<cc_status>\n   <network_status>0</network_status>\n   <ams_password_error>0</ams_password_error>\n")
	for _, kind := range []string{"task", "gpu", "network"} {
		fmt.Fprintf(b, "   <%s_suspend_reason>0</%s_suspend_reason>\n   <%s_mode>2</%s_mode>\n   <%s_mode_perm>2</%s_mode_perm>\n   <%s_mode_delay>%f</%s_mode_delay>\n",
			kind, kind, kind, kind, kind, kind, kind, 0.0, kind)
	}
	b.WriteString("   <disallow_attach>0</disallow_attach>\n   <simple_gui_only>0</simple_gui_only>\n   <max_event_log_lines>2000</max_event_log_lines>\n</cc_status>\n")
}

// Serve answers on a listener until it is closed.
func (c *Client) Serve(l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			s := c.Session()
			r := bufio.NewReader(conn)
			for !s.Closed {
				request, err := r.ReadString(3)
				if err != nil {
					return
				}
				if _, err := conn.Write([]byte(s.Do(strings.TrimSuffix(request, "\x03")) + "\x03")); err != nil {
					return
				}
			}
		})
	}
}
