package etcd_test

func child() {}
