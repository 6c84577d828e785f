//go:build !linux

package mirror

import "errors"

func renameExchange(int, string, int, string) error { return errors.ErrUnsupported }
