"""LoGeR and LoGeR* as reconstructors: windows in, predictions out that say what gauge they are
in."""
