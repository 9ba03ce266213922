//go:build !darwin || cgo

package platform

func lacking() error { return nil }
