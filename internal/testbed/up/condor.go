package main

import "github.com/portolan-project/portolan/internal/testbed"

func init() {
	managers["condor"] = manager{
		up:   func(dir string) ([]string, error) { return testbed.UpCondor(dir, testbed.CondorOptions{}) },
		down: testbed.DownCondor,
		mark: "condor_config",
	}
}
