package main

import (
	"time"

	"syncagent/agent"
)

// duration is a flag that takes what the configuration takes, such as 500ms or 7d. Zero is shown as no default.
type duration time.Duration

func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *duration) Set(text string) error {
	parsed, err := agent.ParseDuration(text)
	if err == nil {
		*d = duration(parsed)
	}
	return err
}

func (d *duration) Type() string { return "duration" }
