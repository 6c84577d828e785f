package main

func besideFigures() []figure { return nil }
