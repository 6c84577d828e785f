package mirror

// print is what tells that a file was not touched since its content was read. It is comparable.
type print struct {
	hash           hash
	inode          uint64
	size           int64
	changed, wrote int64 // Unix nanoseconds
}
