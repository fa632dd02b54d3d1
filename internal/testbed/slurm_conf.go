package testbed

import (
	"fmt"
	"os"
	"strings"
)

// configure writes slurm.conf and what belongs to it.
func (s *Slurm) configure() error {
	o := s.options
	auth := []string{
		"AuthType=auth/munge", "AuthInfo=socket=" + s.path("run", "munge.sock") + ",cred_expire=15",
		"AuthAltTypes=auth/jwt", "AuthAltParameters=jwt_key=" + s.path("jwt.key"), "SlurmUser=" + s.user,
	}
	conf := append([]string{
		"ClusterName=testbed", fmt.Sprintf("SlurmctldHost=%s(%s)", s.host, s.addr), fmt.Sprintf("SlurmctldPort=%d", s.ports.ctld),
		"SlurmdUser=" + s.user, "StateSaveLocation=" + s.path("ctld"), "SlurmdSpoolDir=" + s.path("d", "%n"),
		"SlurmctldPidFile=" + s.path("run", "slurmctld.own.pid"), "SlurmdPidFile=" + s.path("run", "slurmd.%n.own.pid"),
		"SlurmctldLogFile=" + s.path("log", "slurmctld.log"), "SlurmdLogFile=" + s.path("log", "slurmd.%n.log"),
		"SlurmdParameters=config_overrides", "ReturnToService=2", "KillWait=5", "MpiDefault=none",
		"SelectType=select/cons_tres", "SelectTypeParameters=CR_Core_Memory", "DefMemPerCPU=64",
		"JobAcctGatherType=jobacct_gather/linux", "JobAcctGatherFrequency=task=5",
		// Jobs start at once, that tests need not wait for a scheduler's rounds.
		"SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5,sched_min_interval=0,default_queue_depth=1000",
		"MaxJobCount=20000", "MaxArraySize=4001",
	}, auth...)
	if strings.HasPrefix(s.addr, "127.") && s.loopback() {
		conf = append(conf, "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny")
	}
	ram, track, task := "no", "proctrack/linuxproc", "task/none"
	if o.Cgroup {
		ram, track, task = "yes", "proctrack/cgroup", "task/cgroup"
	}
	conf = append(conf, "ProctrackType="+track, "TaskPlugin="+task)
	if o.DBD {
		conf = append(conf, "AccountingStorageType=accounting_storage/slurmdbd", "AccountingStorageHost="+s.addr,
			fmt.Sprintf("AccountingStoragePort=%d", s.ports.dbd), "AccountingStoragePass="+s.path("run", "munge.sock"),
			"AccountingStoreFlags=job_comment")
	} else {
		conf = append(conf, "AccountingStorageType=accounting_storage/none")
	}
	partitions := false
	var nodes []string
	for i, node := range s.Nodes {
		// So many daemons on one machine are told apart by their ports.
		nodes = append(nodes, fmt.Sprintf("NodeName=%s NodeHostname=%s NodeAddr=%s Port=%d CPUs=%d RealMemory=%d TmpDisk=1024 State=UNKNOWN%s",
			node, s.host, s.addr, s.ports.slurmd+i, o.CPUs, o.Memory, s.nodeExtra(i)))
	}
	for _, line := range o.Conf {
		line = strings.NewReplacer("%DIR%", s.Dir, "%HOST%", s.host).Replace(line)
		key, _, _ := strings.Cut(line, "=")
		switch {
		case strings.EqualFold(key, "NodeExtra"):
		case strings.EqualFold(key, "PartitionName"):
			partitions = true
			nodes = append(nodes, line)
		default:
			conf = append(without(conf, key), line)
		}
	}
	if !partitions {
		nodes = append(nodes, "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=01:00:00", "PartitionName=short Nodes=ALL MaxTime=00:10:00")
	}
	if err := write(s.Conf(), append(conf, nodes...)); err != nil {
		return err
	}
	if err := write(s.path("cgroup.conf"), []string{"CgroupPlugin=cgroup/v1", "ConstrainRAMSpace=" + ram}); err != nil {
		return err
	}
	if !o.DBD {
		return nil
	}
	dbd := append([]string{
		"DbdHost=" + s.host, "DbdAddr=" + s.addr, fmt.Sprintf("DbdPort=%d", s.ports.dbd), "StorageHost=localhost",
		"StorageType=accounting_storage/mysql", "StorageUser=" + s.user, "StorageLoc=slurm_acct",
		"LogFile=" + s.path("log", "slurmdbd.log"), "PidFile=" + s.path("run", "slurmdbd.own.pid"),
	}, auth...)
	if err := write(s.path("slurmdbd.conf"), dbd); err != nil {
		return err
	}
	return os.Chmod(s.path("slurmdbd.conf"), 0o600)
}

// nodeExtra gives what the line NodeExtra=… of the options adds to each node; "%d"
// there is the node's number.
func (s *Slurm) nodeExtra(i int) string {
	for _, line := range s.options.Conf {
		if extra, ok := strings.CutPrefix(line, "NodeExtra="); ok {
			return " " + strings.ReplaceAll(extra, "%d", fmt.Sprint(i+1))
		}
	}
	return ""
}

func without(lines []string, key string) []string {
	var out []string
	for _, l := range lines {
		if k, _, _ := strings.Cut(l, "="); !strings.EqualFold(k, key) {
			out = append(out, l)
		}
	}
	return out
}

func write(path string, lines []string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
