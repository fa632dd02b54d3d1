package condor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// attributeName is what an attribute of a ClassAd may be called.
var attributeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// limitName is what a concurrency limit may be called.
var limitName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9_]{1,64})?$`)

// quote gives a string as a literal of the old ClassAd language, in which job ads are
// written: of what it has no way to say, control characters become blanks, a backslash
// before a quote, another backslash or the end becomes U+2216, and "$$", by which
// HTCondor would look into the machine's ad, is broken up.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	runes := []rune(strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "$$", "$ $"))
	for i, r := range runes {
		switch {
		case r == '"':
			b.WriteString(`\"`)
		case r == '\\' && (i+1 == len(runes) || runes[i+1] == '"' || runes[i+1] == '\\'):
			b.WriteRune('\u2216')
		case r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029:
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return strings.ReplaceAll(b.String(), "$$", "$ $") // three and more
}

// escape keeps the submit language from looking into a value: "$" would begin a macro.
func escape(value string) string { return strings.ReplaceAll(value, "$", "$(DOLLAR)") }

// expression says what is wrong with the form of an expression that a job brings; the
// pool itself judges its grammar.
func expression(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New("it is empty")
	case len(s) > maxExpression:
		return fmt.Errorf("it has more than %d bytes", maxExpression)
	case strings.Contains(s, "$$"):
		return errors.New("it holds $$, by which HTCondor would put something else in its place")
	}
	for _, r := range s {
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f || r == 0xfffd {
			return fmt.Errorf("it holds the character %U", r)
		}
	}
	return closedInItself(s)
}

// closedInItself sees that an expression stays one wherever it is put in brackets.
func closedInItself(s string) error {
	var open []byte
	var quoted byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted != 0:
			if c == '\\' {
				i++
			} else if c == quoted {
				quoted = 0
			}
		case c == '"' || c == '\'':
			quoted = c
		case c == '/' && i+1 < len(s) && (s[i+1] == '/' || s[i+1] == '*'):
			return errors.New("it holds a comment")
		case c == '(' || c == '[' || c == '{':
			open = append(open, map[byte]byte{'(': ')', '[': ']', '{': '}'}[c])
		case c == ')' || c == ']' || c == '}':
			if len(open) == 0 || open[len(open)-1] != c {
				return fmt.Errorf("a %q closes nothing", c)
			}
			open = open[:len(open)-1]
		}
	}
	switch {
	case quoted != 0:
		return errors.New("a string is not closed")
	case len(open) > 0:
		return fmt.Errorf("a %q is missing", open[len(open)-1])
	}
	return nil
}

const maxExpression = 4096

// oneLine puts an expression into one line: outside of literals, which can't span
// lines, all white space is alike.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// owned are the attributes of a job that the adapter sets, or that would change whose
// the job is or what becomes of it: a job can't bring its own.
var owned = map[string]bool{}

func init() {
	for a := range strings.FieldsSeq(`accountinggroup acctgroup acctgroupuser accountinggroupuser allowedexecuteduration allowedjobduration args arguments
		bufferfiles clusterid cmd completiondate concurrencylimits containerimage cronminute currenthosts deferraltime deferralwindow deferralpreptime dockerimage
		encryptexecutedirectory enteredcurrentstatus env environment err errerrno executable exitbysignal exitcode exitsignal exitstatus
		globaljobid grid gridresource holdkillsig holdreason holdreasoncode holdreasonsubcode in input iwd jobbatchname jobbatchid
		jobleaseduration jobmaxvacatetime jobmaterializelimit jobnotification jobprio jobrunas jobset jobstatus jobsubmitmethod jobuniverse keepclaimidle killsig
		killsigtimeout lastjobstatus leavejobinqueue lognotes machinecount maxhosts maxretries minhosts mytype niceuser notifyuser numckpts numjobstarts
		numjobmatches numshadowstarts onexithold onexitholdreason onexitremove orighosts originaljobid out output owner periodichold periodicholdreason
		periodicrelease periodicremove periodicremovereason periodicvacate procid qdate rank releasereason remoteowner removekillsig removereason requestcpus
		requestdisk requestgpus requestmemory requirements rootdir runasowner scratchmount servertime shouldtransferfiles stagein stageout streamerr
		streamin streamout submiteventnotes submithost targettype timertimeremove transfererr transferexecutable transferfiles transferin transferinput
		transferout transferoutput transferoutputremaps user userlog userlogusexml usexml wantcontainer wantdocker wantioproxy wantparallelscheduling
		whentotransferoutput x509userproxy`) {
		owned[a] = true
	}
}

// forbidden says why a job may not bring an attribute of that name; "" if it may.
func forbidden(name string) string {
	lower := strings.ToLower(name)
	switch {
	case !attributeName.MatchString(name):
		return "an attribute's name is made of letters, digits and '_'"
	case owned[lower], strings.HasPrefix(lower, "portolan"):
		return "the gateway, or HTCondor, sets this attribute itself"
	case slices.ContainsFunc([]string{"hook", "x509", "token", "cred", "oauth", "submitter", "dag", "cmdhash", "grid", "ec2", "gce", "azure", "nordugrid", "batch"}, func(p string) bool { return strings.HasPrefix(lower, p) }):
		return "attributes of this kind decide with whose rights a job runs, and where"
	}
	return ""
}
