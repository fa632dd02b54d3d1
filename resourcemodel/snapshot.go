package resourcemodel

type sites = map[Key]*Site
