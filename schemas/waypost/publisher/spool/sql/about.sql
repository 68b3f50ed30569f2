select topic, source from about;
