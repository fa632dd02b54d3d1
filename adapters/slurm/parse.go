package slurm

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// queueFormat is what squeue is asked for. The name comes last, as it may hold
// anything, and the reason before it, for the same cause.
const queueFormat = "JobArrayID:|,State:|,exit_code:|,SubmitTime:|,StartTime:|,EndTime:|,RestartCnt:|,NodeList:|,UserName:|,Reason:|,Name:|"

const queueFields = 11

// parseQueue reads squeue's answer. Lines of other people's making that make no
// sense are left out.
func parseQueue(out string) []record {
	records := make([]record, 0, strings.Count(out, "\n"))
	for line := range strings.Lines(out) {
		if r, ok := parseQueueLine(strings.TrimSuffix(line, "\n")); ok {
			records = append(records, r)
		}
	}
	return records
}

func parseQueueLine(line string) (record, bool) {
	f := strings.Split(strings.TrimSuffix(line, "|"), "|")
	if len(f) < queueFields {
		return record{}, false
	}
	id, ok := parseJobID(f[0])
	if !ok {
		return record{}, false
	}
	status, err := strconv.Atoi(f[2])
	if err != nil {
		return record{}, false
	}
	r := record{
		ID: id, State: firstWord(f[1]), Status: status, Exact: true, Submitted: epoch(f[3]), Started: epoch(f[4]), Ended: epoch(f[5]),
		Nodes: f[7], User: f[8], Reason: strings.Join(f[9:len(f)-1], "|"), Name: f[len(f)-1],
	}
	r.Restarts, _ = strconv.Atoi(f[6])
	return r, r.State != ""
}

// pastFormat is what sacct is asked for, likewise.
const (
	pastFormat = "JobID,State,ExitCode,Submit,Start,End,NodeList,User,JobName"
	pastFields = 9
)

// parsePast reads sacct's answer.
func parsePast(out string) []record {
	var records []record
	for line := range strings.Lines(out) {
		if r, ok := parsePastLine(strings.TrimSuffix(line, "\n")); ok {
			records = append(records, r)
		}
	}
	return records
}

func parsePastLine(line string) (record, bool) {
	f := strings.Split(line, "|")
	if len(f) < pastFields {
		return record{}, false
	}
	id, ok := parseJobID(f[0])
	if !ok {
		return record{}, false
	}
	status, ok := parseExit(f[2])
	if !ok {
		return record{}, false
	}
	r := record{
		ID: id, State: firstWord(f[1]), Status: status, Submitted: epoch(f[3]), Started: epoch(f[4]), Ended: epoch(f[5]),
		Nodes: f[6], User: f[7], Name: strings.Join(f[8:], "|"),
	}
	if by, ok := strings.CutPrefix(f[1], "CANCELLED by "); ok {
		r.By = by
	}
	return r, r.State != ""
}

// parseExit reads "7:0" or "0:15" into a status as wait(2) has it.
func parseExit(s string) (int, bool) {
	code, signal, ok := strings.Cut(s, ":")
	if !ok {
		return 0, false
	}
	c, err1 := strconv.ParseUint(code, 10, 24)
	n, err2 := strconv.ParseUint(signal, 10, 8)
	return int(c)<<8 | int(n), err1 == nil && err2 == nil
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return strings.TrimRight(word, "+*")
}

// epoch reads seconds since 1970; the zero time for "N/A", "Unknown" and the like.
func epoch(s string) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// pairs reads "Key=value Key=value": a value reaches up to the next word that has a
// key of those known.
func pairs(line string) map[string]string {
	out := map[string]string{}
	last := ""
	for word := range strings.FieldsSeq(line) {
		key, value, ok := strings.Cut(word, "=")
		if ok && plainKey(key) {
			if _, twice := out[key]; !twice {
				out[key], last = value, key
				continue
			}
		}
		if last != "" {
			out[last] += " " + word
		}
	}
	return out
}

func plainKey(key string) bool {
	if key == "" || key[0] < 'A' || key[0] > 'Z' {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '/' && c != ':' && c != '_' {
			return false
		}
	}
	return true
}

// parseNodes reads "scontrol show node -o".
func parseNodes(out string) []node {
	var nodes []node
	for line := range strings.Lines(out) {
		p := pairs(line)
		if p["NodeName"] == "" {
			continue
		}
		n := node{
			Name: p["NodeName"], Arch: p["Arch"], OS: p["OS"], CPUs: number(p["CPUEfctv"]), Threads: number(p["ThreadsPerCore"]), Alloc: number(p["CPUAlloc"]), Memory: int64(number(p["RealMemory"])),
			Used: int64(number(p["AllocMem"])), Tmp: int64(number(p["TmpDisk"])), State: p["State"], Gres: null(p["Gres"]),
		}
		if n.CPUs == 0 {
			n.CPUs = number(p["CPUTot"])
		}
		n.Features = list(p["ActiveFeatures"])
		n.Partitions = list(p["Partitions"])
		nodes = append(nodes, n)
	}
	return nodes
}

// parsePartitions reads "scontrol show partition -o".
func parsePartitions(out string) []partition {
	var all []partition
	for line := range strings.Lines(out) {
		p := pairs(line)
		if p["PartitionName"] == "" {
			continue
		}
		all = append(all, partition{
			Name: p["PartitionName"], Default: p["Default"] == "YES", Up: p["State"] == "UP", MaxMinutes: minutes(p["MaxTime"]), DefaultMinutes: minutes(p["DefaultTime"]),
			MaxNodes: number(p["MaxNodes"]), MaxMemory: int64(number(p["MaxMemPerNode"])),
		})
	}
	return all
}

// number reads the digits that a value begins with; 0 for words.
func number(s string) int {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return 0
	}
	return n
}

func null(s string) string {
	if s == "(null)" || s == "N/A" {
		return ""
	}
	return s
}

func list(s string) []string {
	if null(s) == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// minutes reads Slurm's "days-hours:minutes:seconds", "hours:minutes:seconds",
// "minutes:seconds" or "minutes"; 0 for UNLIMITED and the like.
func minutes(s string) int64 {
	days, clock, ok := strings.Cut(s, "-")
	if !ok {
		days, clock = "0", s
	}
	d, err := strconv.ParseInt(days, 10, 32)
	if err != nil {
		return 0
	}
	var parts []int64
	for f := range strings.SplitSeq(clock, ":") {
		n, err := strconv.ParseInt(f, 10, 32)
		if err != nil || n < 0 {
			return 0
		}
		parts = append(parts, n)
	}
	switch {
	case len(parts) == 3:
		return d*24*60 + parts[0]*60 + parts[1] + (parts[2]+59)/60
	case ok && len(parts) == 2:
		return d*24*60 + parts[0]*60 + parts[1]
	case ok && len(parts) == 1:
		return d*24*60 + parts[0]*60
	case len(parts) == 2:
		return parts[0] + (parts[1]+59)/60
	case len(parts) == 1:
		return parts[0]
	}
	return 0
}

// parseConfig reads "scontrol show config": "Key = value" lines.
func parseConfig(out string) (*facts, error) {
	c := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(line, "="); ok {
			c[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	f := &facts{Version: c["SLURM_VERSION"], Cluster: c["ClusterName"]}
	if f.Version == "" {
		return nil, fmt.Errorf("the configuration of Slurm has no version")
	}
	f.SlurmUser, _, _ = strings.Cut(c["SlurmUser"], "(")
	f.Select = c["SelectType"]
	f.MaxArray = number(c["MaxArraySize"])
	f.MessageTimeout = time.Duration(number(c["MessageTimeout"])) * time.Second
	f.Accounting = strings.HasSuffix(c["AccountingStorageType"], "/slurmdbd")
	f.Enforce = strings.Contains(c["AccountingStorageEnforce"], "associations") || strings.Contains(c["AccountingStorageEnforce"], "limits") || strings.Contains(c["AccountingStorageEnforce"], "qos")
	f.MemoryLimits = strings.EqualFold(c["ConstrainRAMSpace"], "yes") && strings.Contains(c["TaskPlugin"], "cgroup")
	return f, nil
}
